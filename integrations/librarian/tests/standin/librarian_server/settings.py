from types import SimpleNamespace

server_settings = SimpleNamespace(name="librarian-a", max_async_send_retries=3, max_async_inflight_transfers=64)
