//! What the daemon reads before there is a session.

mod access;
mod config;
mod proxy;

use access::{Hosts, Peer};
use config::DaemonVariables;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a proxy says of its client, and whether that one is let in by two lists.
pub(crate) fn doors(data: &[u8]) {
    let Ok(header) = proxy::read(data) else { return lists(data) };
    for end in 0..data.len().min(120) {
        // Whatever is there, less of it is waited for or means the same.
        if let Ok(Some(early)) = proxy::read(&data[..end]) {
            assert_eq!(Some(early), header);
        }
    }
    assert!(header.is_none_or(|header| header.len <= data.len()));
}

fn lists(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (allow, deny) = text.split_once('\n').unwrap_or((text, ""));
    let hosts = Hosts { allow: Some(allow), deny: Some(deny), forward: false };
    let _ = (access::malformed(allow), access::names_matter(deny));
    let mut peers = [IpAddr::from(Ipv4Addr::new(192, 168, 7, 9)), Ipv6Addr::LOCALHOST.into()].map(Peer::at);
    peers[0].name = Some("host.example.org".into());
    for peer in peers.iter().chain([&Peer::default()]) {
        let _ = (hosts.admit(peer), peer.shown_address(), peer.shown_name());
    }
}

/// A file of modules. More than one that includes others would be a matter of time alone.
pub(crate) fn modules(data: &[u8]) {
    if data.iter().filter(|&&byte| byte == b'&').count() > 1 {
        return;
    }
    let path = crate::disk::written("rsyncd.conf", data);
    let overrides = ["timeout=5".to_owned()];
    if let Ok(config) = config::Config::read(&path, &overrides, &DaemonVariables::default()) {
        for module in &config.modules {
            assert!(config.module(&module.name).is_some());
        }
    }
}
