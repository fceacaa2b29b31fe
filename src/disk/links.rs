//! Where symlinks lead, judged by their text alone. Counterpart: rsync's `unsafe_symlink` and its munging of links.

/// What stands before the target of a link that is kept unusable (`--munge-links`).
const MUNGED: &[u8] = b"/rsyncd-munged/";

/// Whether a link called `name` may lead out of the tree: it is absolute, empty, climbs above the top, or goes up again
/// after it has gone down, where another link may have led it elsewhere.
pub(crate) fn is_unsafe(target: &[u8], name: &[u8]) -> bool {
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
pub(crate) fn munged(target: &[u8]) -> Vec<u8> {
    [MUNGED, target].concat()
}

/// The target as it was before it was kept so.
pub(crate) fn unmunged(target: Vec<u8>) -> Vec<u8> {
    target.strip_prefix(MUNGED).map(<[u8]>::to_vec).unwrap_or(target)
}

/// The target as it is kept where no link called `name` may lead above the top: without the slash it begins with, and
/// without what climbs higher than it has come down. rsync: sanitize_path
pub(crate) fn sanitized(target: &[u8], name: &[u8]) -> Vec<u8> {
    let plain = |component: &&[u8]| !matches!(*component, b"" | b".");
    let depth = name.split(|&byte| byte == b'/').filter(plain).count().saturating_sub(1);
    let relative = &target[target.iter().take_while(|&&byte| byte == b'/').count()..];
    let depth = if relative.len() < target.len() { 0 } else { depth };
    let mut kept: Vec<&[u8]> = Vec::new();
    // So many of them climb.
    let mut climbs = 0;
    for component in relative.split(|&byte| byte == b'/').filter(plain) {
        match component {
            b".." if kept.len() > climbs => drop(kept.pop()),
            b".." if climbs < depth => {
                kept.push(component);
                climbs += 1;
            }
            b".." => {}
            component => kept.push(component),
        }
    }
    if kept.is_empty() {
        return b".".to_vec();
    }
    let mut clean = kept.join(&b'/');
    if relative.ends_with(b"/") {
        clean.push(b'/');
    } else if relative.ends_with(b"/.") {
        clean.extend_from_slice(b"/.");
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As stock 3.5.0's daemon keeps them.
    #[test]
    fn a_kept_target_stays_below_the_top() {
        for (name, target, wanted) in [
            ("abs", "/etc/passwd", "etc/passwd"),
            ("esc", "../../x", "x"),
            ("ok", "../ok", "ok"),
            ("q/deep", "../../../y", "../y"),
            ("q/in", "../z", "../z"),
            ("q/mid", "a/../../../b", "../b"),
            ("root", "/", "."),
            ("up", "..", "."),
            ("dotup", "./../x", "x"),
            ("dbl", "//a//b", "a/b"),
            ("tail", "x/../../..", "."),
            ("slash", "x/", "x/"),
            ("sdot", "x/.", "x/."),
            ("col", "a/../b", "b"),
            ("q/r/y4", "../../../../y", "../../y"),
            ("absup", "/../x", "x"),
            ("adb", "a/./b", "a/b"),
            ("q/upslash", "../", "../"),
            ("ddd", "...", "..."),
        ] {
            let found = sanitized(target.as_bytes(), name.as_bytes());
            assert_eq!(String::from_utf8(found).unwrap(), wanted, "{name} -> {target}");
        }
    }

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
