use super::*;

#[test]
fn only_websocket_urls_are_router_addresses() {
    assert!(request("ws://127.0.0.1:8001/ws").is_ok());
    assert!(request("wss://crossbar.example/ws").is_ok());
    for bad in ["", "rs://127.0.0.1:8001", "http://127.0.0.1:8001/ws", "127.0.0.1:8001", "ws://", "ws:// a/"] {
        let error = request(bad).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("give a ws:// or wss:// URL"), "{bad}: {error}");
    }
}
