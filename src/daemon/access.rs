//! Who may connect: `hosts allow` and `hosts deny`. Counterpart: rsync's `access.c`.

use crate::disk::wild;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who is at the other end.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    /// Its address; `None` where there is no socket and nobody tells.
    pub(super) address: Option<IpAddr>,
    /// The name of the address, where the name's own addresses confirm it.
    pub(super) name: Option<String>,
}

impl Peer {
    /// A peer at an address; an IPv4 address in IPv6 clothes is taken as what it is.
    pub(super) fn at(address: IpAddr) -> Self {
        Self { address: Some(address.to_canonical()), name: None }
    }

    /// Asks for the name. A name that does not lead back to the address is anybody's invention.
    pub(super) fn look_up(&mut self) {
        let Some(address) = self.address.filter(|_| self.name.is_none()) else { return };
        let name = dns_lookup::lookup_addr(&address).ok();
        // A resolver without an answer gives the address back as a name.
        let name = name.filter(|name| name.parse::<IpAddr>().is_err());
        self.name = name.filter(|name| addresses(name).is_some_and(|found| found.contains(&address)));
    }

    pub(super) fn shown_name(&self) -> &str {
        self.name.as_deref().unwrap_or("UNDETERMINED")
    }

    pub(super) fn shown_address(&self) -> String {
        self.address.map_or_else(|| "unknown".to_owned(), |address| address.to_string())
    }
}

/// The two lists of a module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hosts<'a> {
    pub(super) allow: Option<&'a str>,
    pub(super) deny: Option<&'a str>,
    /// Whether names in the lists are looked up (`forward lookup`).
    pub(super) forward: bool,
}

impl Hosts<'_> {
    /// Whether the lists let a peer in. What cannot be decided is decided against it.
    pub(super) fn admit(&self, peer: &Peer) -> bool {
        match (self.allow, self.deny) {
            (None, None) => true,
            (Some(allow), _) if self.listed(allow, peer, false) => true,
            (_, Some(deny)) => !self.listed(deny, peer, true),
            (Some(_), None) => false,
        }
    }

    /// Whether any pattern of a list matches; one that cannot be decided counts as `unsure`.
    fn listed(&self, list: &str, peer: &Peer, unsure: bool) -> bool {
        patterns(list).any(|pattern| self.matches(pattern, peer).unwrap_or(unsure))
    }

    fn matches(&self, pattern: &str, peer: &Peer) -> Option<bool> {
        if pattern == "*" {
            return Some(true);
        }
        let address = peer.address;
        match HostPattern::parse(pattern)? {
            HostPattern::Network(network, bits) => Some(within(address?, network, bits)),
            HostPattern::Wild => Some(wild::matches_caseless(pattern, peer.name.as_deref()?)),
            HostPattern::Name => {
                if peer.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(pattern)) {
                    return Some(true);
                }
                if self.forward {
                    return Some(addresses(pattern)?.contains(&address?));
                }
                peer.name.as_ref().map(|_| false)
            }
        }
    }
}

/// The patterns of a list that mean nothing; for the check at the start.
pub(super) fn malformed(list: &str) -> Option<&str> {
    patterns(list).find(|pattern| *pattern != "*" && HostPattern::parse(pattern).is_none())
}

/// Whether a list asks for the names of peers.
pub(super) fn names_matter(list: &str) -> bool {
    patterns(list).any(|pattern| matches!(HostPattern::parse(pattern), Some(HostPattern::Wild | HostPattern::Name)))
}

fn patterns(list: &str) -> impl Iterator<Item = &str> {
    list.split(|letter: char| letter == ',' || letter.is_whitespace()).filter(|pattern| !pattern.is_empty())
}

#[derive(Debug, PartialEq)]
enum HostPattern {
    Network(IpAddr, u8),
    Wild,
    Name,
}

impl HostPattern {
    fn parse(pattern: &str) -> Option<Self> {
        let (network, mask) = pattern.split_once('/').map_or((pattern, None), |(net, mask)| (net, Some(mask)));
        // A zone says by which link; the kernel has delivered it by then.
        let address = network.split('%').next().unwrap_or(network).parse::<IpAddr>().ok();
        match (address, mask) {
            (Some(address), mask) => {
                let most = if address.is_ipv4() { 32 } else { 128 };
                let bits = match mask {
                    None => most,
                    Some(mask) => mask.parse().ok().or_else(|| mask_bits(mask.parse().ok()?))?,
                };
                (bits <= most).then_some(Self::Network(address, bits))
            }
            (None, Some(_)) => None,
            // A netgroup; there are none here.
            (None, None) if pattern.starts_with('@') => None,
            (None, None) if wild::is_wild(pattern.as_bytes()) => Some(Self::Wild),
            (None, None) => Some(Self::Name),
        }
    }
}

/// The length of a mask that is written as an address.
fn mask_bits(mask: IpAddr) -> Option<u8> {
    let (value, ones) = match mask {
        IpAddr::V4(mask) => (u128::from(u32::from(mask)) << 96, u32::from(mask).leading_ones()),
        IpAddr::V6(mask) => (u128::from(mask), u128::from(mask).leading_ones()),
    };
    let whole = value.checked_shl(ones).unwrap_or(0) == 0;
    whole.then_some(ones as u8)
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let first = |value: u128, width: u32| value.checked_shr(width - u32::from(bits)).unwrap_or(0);
    match (address, network.to_canonical(), network) {
        (IpAddr::V4(a), IpAddr::V4(n), IpAddr::V4(_)) => first(v4(a), 32) == first(v4(n), 32),
        (IpAddr::V6(a), _, IpAddr::V6(n)) => first(v6(a), 128) == first(v6(n), 128),
        // A network of mapped addresses, and an address that was unmapped.
        (IpAddr::V4(a), _, IpAddr::V6(n)) => first(v6(a.to_ipv6_mapped()), 128) == first(v6(n), 128),
        _ => false,
    }
}

fn v4(address: Ipv4Addr) -> u128 {
    u32::from(address).into()
}

fn v6(address: Ipv6Addr) -> u128 {
    address.into()
}

/// The addresses of a name; `None` where it has none.
fn addresses(name: &str) -> Option<Vec<IpAddr>> {
    let found: Vec<_> = dns_lookup::lookup_host(name).ok()?.map(|address| address.to_canonical()).collect();
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, name: Option<&str>) -> Peer {
        Peer { name: name.map(str::to_owned), ..Peer::at(address.parse().unwrap()) }
    }

    fn admits(allow: Option<&str>, deny: Option<&str>, address: &str, name: Option<&str>) -> bool {
        Hosts { allow, deny, forward: true }.admit(&peer(address, name))
    }

    #[test]
    fn addresses_and_masks() {
        for (pattern, address, expected) in [
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "::ffff:10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("10.1.0.0/16", "10.1.9.9", true),
            ("10.1.0.0/16", "10.2.0.0", false),
            ("10.1.0.0/255.255.0.0", "10.1.9.9", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "1.2.3.4", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/ffff:ffff::", "2001:db9::1", false),
            ("fe80::1%link1", "fe80::1", true),
            ("*", "1.2.3.4", true),
        ] {
            assert_eq!(admits(Some(pattern), None, address, None), expected, "{pattern} {address}");
        }
        for bad in ["10.0.0.0/33", "10.0.0.0/255.0.255.0", "10.0.0/8", "@group", "::/129", "10.0.0.0/"] {
            assert_eq!(malformed(bad), Some(bad));
        }
        assert_eq!(malformed("*, 10.0.0.0/8 host.example *.example"), None);
    }

    #[test]
    fn allow_goes_before_deny_and_doubt_is_a_no() {
        let host = Some("a.example");
        assert!(admits(None, None, "1.2.3.4", None));
        assert!(admits(Some("1.2.3.4"), Some("*"), "1.2.3.4", None));
        assert!(!admits(Some("1.2.3.4"), Some("*"), "1.2.3.5", None));
        assert!(admits(Some("1.2.3.4"), Some("9.9.9.9"), "1.2.3.5", None));
        assert!(!admits(Some("1.2.3.4"), None, "1.2.3.5", None));
        assert!(!admits(None, Some("*.EXAMPLE"), "1.2.3.5", host));
        assert!(admits(Some("*.example x"), None, "1.2.3.5", host));
        // Nobody knows the peer's name, or the name in the list has no address.
        assert!(!admits(None, Some("*.example"), "1.2.3.5", None));
        assert!(!admits(Some("*.example"), None, "1.2.3.5", None));
        assert!(!admits(None, Some("nowhere.invalid"), "1.2.3.5", host));
        assert!(!admits(Some("nowhere.invalid"), None, "1.2.3.5", host));
        // Nothing is known of it at all.
        let nobody = Peer::default();
        assert!(!Hosts { allow: None, deny: Some("10.0.0.0/8"), forward: true }.admit(&nobody));
        assert!(!Hosts { allow: Some("10.0.0.0/8"), deny: None, forward: true }.admit(&nobody));
    }

    #[test]
    fn the_loopback_has_a_name() {
        let mut peer = peer("127.0.0.1", None);
        peer.look_up();
        assert!(admits(Some("localhost"), None, "127.0.0.1", None));
        assert!(matches!(peer.name.as_deref(), None | Some("localhost")), "{peer:?}");
    }
}
