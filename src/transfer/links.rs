//! Where symlinks lead, judged by their text alone. Counterpart: rsync's `unsafe_symlink` and its munging of links.

/// What stands before the target of a link that is kept unusable (`--munge-links`).
const MUNGED: &[u8] = b"/rsyncd-munged/";

/// Whether a link called `name` may lead out of the tree: it is absolute, empty, climbs above the top, or goes up again
/// after it has gone down, where another link may have led it elsewhere.
pub(super) fn is_unsafe(target: &[u8], name: &[u8]) -> bool {
    if target.is_empty() || target.starts_with(b"/") {
        return true;
    }
    let plain = |component: &&[u8]| !matches!(*component, b"" | b".");
    let mut depth = name.split(|&byte| byte == b'/').filter(plain).count().saturating_sub(1);
    let mut rest = target;
    while let Some(further) = rest.strip_prefix(b"../") {
        rest = further;
        if depth == 0 {
            return true;
        }
        depth -= 1;
    }
    let climbs_last = target.ends_with(b"/..") || (rest == b".." && depth == 0);
    climbs_last || rest.split(|&byte| byte == b'/').skip(1).any(|component| component == b"..")
}

/// The target as it is kept.
pub(super) fn munged(target: &[u8]) -> Vec<u8> {
    [MUNGED, target].concat()
}

/// The target as it was before it was kept so.
pub(super) fn unmunged(target: Vec<u8>) -> Vec<u8> {
    target.strip_prefix(MUNGED).map(<[u8]>::to_vec).unwrap_or(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As stock judges them.
    #[test]
    fn links_that_lead_out() {
        for (name, target) in [
            ("ok", "real/f"),
            ("dangling", "nowhere"),
            ("d/ok2", "../real/f"),
            ("d/e/esc", "../../l1/real"),
            ("d/up", ".."),
            ("./d/ok", "../x"),
        ] {
            assert!(!is_unsafe(target.as_bytes(), name.as_bytes()), "{name} -> {target}");
        }
        for (name, target) in [
            ("abs", "/etc/passwd"),
            ("empty", ""),
            ("up", "../out"),
            ("dd", ".."),
            ("nested", "d/../../x"),
            ("mid", "d/../ok"),
            ("tail", "d/.."),
            ("dotup", "./../l1"),
            ("d/e/top", "../.."),
            ("d/e/over", "../../.."),
        ] {
            assert!(is_unsafe(target.as_bytes(), name.as_bytes()), "{name} -> {target}");
        }
    }

    #[test]
    fn munging_is_undone() {
        assert_eq!(munged(b"/etc/passwd"), b"/rsyncd-munged//etc/passwd");
        assert_eq!(unmunged(munged(b"../x")), b"../x");
        assert_eq!(unmunged(b"../x".to_vec()), b"../x");
    }
}
