//! What is wrong, and what whoever is on shift can do about it.

use super::report::{TroubleKind, TroubleReport};
use crate::clock::unix_now;
use crate::status::{LASTING, Ongoing, Snapshot};

/// Words of a trouble of the link, and what to do then.
const OF_THE_LINK: [(&[&str], &str); 7] = [
    (
        &["host key", "Host key"],
        "Look at the storage node first: the key is not in known_hosts, or another one is. ssh-keyscan prints it, its owner confirms it",
    ),
    (
        &["Authentication failed", "authentication"],
        "Look at the node's authorized_keys and at the key: ~/.ssh must have mode 700, the key 600; `check` tries each of them",
    ),
    (
        &["No space left", "quota exceeded"],
        "Make room at the storage node, or move the archive. Nothing fails meanwhile, and it goes on by itself",
    ),
    (&["Read-only file system"], "The storage node's file system is read-only: look at its disk and its kernel log"),
    (
        &["Permission denied", "not writable", "No such file"],
        "Look at --data-dir at the storage node: it must be there, and our user must be allowed to write there",
    ),
    (
        &["refused", "unreachable", "No route", "resolve", "lookup"],
        "Look whether the storage node is up and its sshd answers: ssh to it by hand. Files wait, and it goes on by itself",
    ),
    (
        &["timed out", "did not answer", "Nothing moved", "silent", "stalled"],
        "The storage node or the way to it is stuck: look at its load, its disk and the network. It goes on by itself",
    ),
];

/// What is wrong with a run now: what keeps all files waiting first.
pub(super) fn of_the_run(now: &Snapshot) -> Vec<TroubleReport> {
    let mut troubles = Vec::new();
    let mut add = |kind, ongoing: &Option<Ongoing>, remedy: fn(&str) -> &'static str| {
        if let Some(Ongoing { why, since }) = ongoing {
            let remedy = remedy(why).to_owned();
            troubles.push(TroubleReport { kind, why: why.clone(), remedy, since: Some(*since) });
        }
    };
    add(TroubleKind::Database, &now.database, of_the_database);
    add(TroubleKind::Link, &now.link, of_the_link);
    add(
        TroubleKind::Source,
        &now.source,
        |_| "Look whether the folder is mounted and answers. Its files wait, those of other folders go on, and it is looked at again by itself",
    );
    troubles
}

/// Of files that are on their way and do not come on: long before the connection counts as lost.
pub(super) fn of_standstill(seconds: f64, in_flight: u64) -> Option<TroubleReport> {
    if seconds < LASTING || in_flight == 0 {
        return None;
    }
    let files = if in_flight == 1 { "1 file is".to_owned() } else { format!("{in_flight} files are") };
    let remedy = "The storage node, or the disk here, may be reading a large file to prove it. Else look at the node's load and disk, and \
                  at the network; after --stall-timeout the connection counts as lost, and it is tried again by itself";
    Some(TroubleReport {
        kind: TroubleKind::Link,
        why: format!("{files} on the way, and nothing moves"),
        remedy: remedy.to_owned(),
        since: Some(unix_now() - seconds),
    })
}

/// Of rows that were given up.
pub(crate) fn of_given_up(rows: u64) -> Option<TroubleReport> {
    let why = match rows {
        0 => return None,
        1 => "1 row was given up".to_owned(),
        rows => format!("{rows} rows were given up"),
    };
    let remedy = "Mend what is said below; `pysmurf-archiver files list --failed` has all of them, `retry --all` tries them again";
    Some(TroubleReport { kind: TroubleKind::GivenUp, why, remedy: remedy.to_owned(), since: None })
}

/// Of a table that cannot be used.
pub(crate) fn of_the_database(why: &str) -> &'static str {
    match why {
        why if why.contains("another") && why.contains("archiver") => {
            "Another archiver works on these rows: look for it on this and other hosts, and end one of the two"
        }
        why if why.contains("not there any more") => "The file of the database is gone: put it back, or correct --db",
        why if why.contains("locked") || why.contains("busy") => {
            "Somebody holds the database: look for a long transaction. It is tried again by itself"
        }
        why if why.contains("denied") => "Look at the account: user, password and rights are told by `check`",
        _ => {
            "Look whether the database server is up and reached from here; `check` tells more. It is tried again by itself"
        }
    }
}

fn of_the_link(why: &str) -> &'static str {
    let found = OF_THE_LINK.iter().find(|(words, _)| words.iter().any(|word| why.contains(word)));
    found.map_or(
        "Files wait and are tried again by themselves. If it lasts, `check` with the options of run says what is wrong",
        |(_, remedy)| remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_has_a_remedy_of_its_own() {
        let of = |why: &str| of_the_link(why);
        assert!(of("Cannot reach storage:22: Connection refused").contains("sshd answers"));
        assert!(of("rsync: write failed: No space left on device (28)").contains("Make room"));
        assert!(of("something new").contains("`check`"));
        let [link, database] = ["x", "y"].map(|why| Some(Ongoing { why: why.into(), since: 1.0 }));
        let now = Snapshot { link, database, ..Snapshot::default() };
        let kinds: Vec<_> = of_the_run(&now).iter().map(|trouble| trouble.kind).collect();
        assert_eq!(kinds, [TroubleKind::Database, TroubleKind::Link]);
        assert_eq!(of_given_up(0), None);
        assert_eq!(of_standstill(LASTING - 1.0, 3), None);
        assert_eq!(of_standstill(LASTING, 0), None);
        let stuck = of_standstill(LASTING, 3).unwrap();
        assert!(stuck.kind == TroubleKind::Link && stuck.why.contains("3 files"), "{stuck:?}");
    }
}
