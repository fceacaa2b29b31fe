//! Why rows were given up, those of one reason together.

use super::report::ReasonReport;
use crate::catalog::Note;

/// Paths that are shown of each reason.
const PATHS_MOST: usize = 3;
/// Reasons that are told apart.
const REASONS_MOST: usize = 20;
/// What is said where no reason was kept.
const UNKNOWN: &str = "why it failed was not kept";

/// Words of a reason, and what to do then.
const REMEDIES: [(&str, &str); 7] = [
    (
        "missing",
        "Look where the file went. Put it back and retry; if it is gone for good, `files ignore` leaves its row out",
    ),
    (
        "has changed",
        "The file is not what was registered. If it is right as it is now, `files accept` says so; else put back what it was and retry",
    ),
    ("outside", "The row names a file outside of --source-root: correct one of the two, then retry"),
    (
        "refused",
        "Look at the place in the archive: rights, the length of the name, a file where a folder is to be; then retry",
    ),
    ("cannot be read", "Give our user the right to read the file, or look at its disk; then retry"),
    ("cannot be stored", "Look at the place in the archive: rights, room, the length of the name; then retry"),
    ("too long", "The path does not fit into the table's column: shorten --data-dir or the file's name, then retry"),
];

/// Groups what is noted by the words before the first colon, most rows first.
pub(super) fn grouped(notes: &[Note]) -> Vec<ReasonReport> {
    let mut groups: Vec<ReasonReport> = Vec::new();
    for note in notes {
        let why = note.reason.as_ref().map_or(UNKNOWN, |(_, why)| why.as_str());
        let reason = why.split(": ").next().unwrap_or(why);
        let group = match groups.iter().position(|group| group.reason == reason) {
            Some(at) => &mut groups[at],
            None if groups.len() >= REASONS_MOST => continue,
            None => {
                groups.push(ReasonReport {
                    reason: reason.to_owned(),
                    example: why.to_owned(),
                    remedy: remedy(why).to_owned(),
                    ..ReasonReport::default()
                });
                let last = groups.len() - 1;
                &mut groups[last]
            }
        };
        group.rows += 1;
        group.ids.push(note.id.0);
        if group.paths.len() < PATHS_MOST {
            group.paths.push(note.path.clone());
        }
    }
    groups.sort_by_key(|group| std::cmp::Reverse(group.rows));
    groups
}

fn remedy(why: &str) -> &'static str {
    let found = REMEDIES.iter().find(|(words, _)| why.contains(words));
    found.map_or("See the log of run for what went before; mend it, then retry", |(_, remedy)| remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::RecordId;

    #[test]
    fn rows_of_one_reason_are_told_together() {
        let note = |id, why: Option<&str>| Note {
            id: RecordId(id),
            path: format!("/d/{id}"),
            attempts: 5,
            reason: why.map(|why| (1.0, why.to_owned())),
            node: None,
        };
        let refused = "the storage node refused it: rsync: mkdir failed";
        let notes =
            [note(1, Some(refused)), note(2, Some("it is missing")), note(3, Some("it is missing")), note(4, None)];
        let groups = grouped(&notes);
        let told: Vec<_> =
            groups.iter().map(|group| (group.reason.as_str(), group.rows, group.ids.as_slice())).collect();
        assert_eq!(
            told,
            [("it is missing", 2, [2, 3].as_slice()), ("the storage node refused it", 1, &[1]), (UNKNOWN, 1, &[4])]
        );
        assert!(groups[0].remedy.contains("Put it back") && groups[1].example == refused);
    }
}
