//! What every catalog does.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use pysmurf_archiver::catalog::{Keeping, Retry, Totals};

/// Runs each check on each kind of table.
macro_rules! on_both {
    ($($check:ident)*) => {
        mod on_mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                if let Some(fixture) = super::super::mysql::Table::new(concat!("both_", stringify!($check))) {
                    super::$check(&fixture).await;
                }
            })*
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() {
                super::$check(&super::super::sqlite::Table::new()).await;
            })*
        }
    };
}

on_both! {
    an_empty_table
    rows_come_in_pages_in_order
    only_waiting_rows_of_the_target
    a_copy_is_recorded_once
    a_failure_counts_once
    the_last_failure_gives_up
    a_failure_is_noted_until_the_row_is_proven
    a_batch_of_both_outcomes
    rows_given_up_get_a_new_chance
    one_archiver_at_a_time
    names_that_no_row_has_are_told
    names_of_every_kind
    two_recorders_change_each_row_once
    recorders_and_a_producer_do_not_block_each_other
    a_large_backlog_is_read_in_pages
}

async fn an_empty_table(table: &impl Fixture) {
    let catalog = table.open().await;
    assert_eq!(all(&catalog).await, []);
    assert_eq!(catalog.newest().await.unwrap(), RecordId(0));
    assert_eq!(catalog.totals().await.unwrap(), Totals::default());
    assert_eq!(catalog.oldest().await.unwrap(), None);
    assert_eq!(catalog.record(&[]).await.unwrap(), 0);
    assert_eq!(catalog.record(&[copied(17, "x"), failed(18, 0)]).await.unwrap(), 0);
    catalog.close().await;
}

async fn rows_come_in_pages_in_order(table: &impl Fixture) {
    let rows: Vec<NewRow> = (0..25).map(|n| NewRow::new(format!("/data/{n}"))).collect();
    let first = table.insert(&rows);
    let catalog = table.open().await;
    let mut after = RecordId(0);
    let mut found = Vec::new();
    for size in [10, 10, 5, 0] {
        let page = catalog.pending(after, 10).await.unwrap();
        assert_eq!(page.len(), size);
        after = page.last().map_or(after, Pending::id);
        found.extend(page);
    }
    assert_eq!(ids(&found), (first..first + 25).collect::<Vec<_>>());
    assert_eq!(catalog.newest().await.unwrap(), RecordId(first + 24));
    let records = ready(found);
    assert_eq!(records[7].source, Path::new("/data/7"));
    assert_eq!(records[7].md5, MD5);
    assert_eq!(catalog.pending(RecordId(0), 0).await.unwrap(), []);
    catalog.close().await;
}

async fn only_waiting_rows_of_the_target(table: &impl Fixture) {
    let row = NewRow::new("/data/x");
    let first = table.insert(&[
        NewRow { target: Some("other"), ..row.clone() },
        NewRow { copied: true, ..row.clone() },
        NewRow { attempts: Some(MAX_ATTEMPTS), ..row.clone() },
        NewRow { attempts: None, ..row.clone() },
        NewRow { attempts: Some(MAX_ATTEMPTS - 1), ..row.clone() },
        row,
    ]);
    let catalog = table.open().await;
    let found = all(&catalog).await;
    assert_eq!(ids(&found), [first + 4, first + 5]);
    assert_eq!(ready(found)[0].attempts, MAX_ATTEMPTS - 1);
    assert_eq!(catalog.totals().await.unwrap(), Totals { pending: 2, given_up: 1, copied: 1 });
    catalog.close().await;
}

async fn a_copy_is_recorded_once(table: &impl Fixture) {
    let id = table.insert(&[NewRow::new("/data/x"), NewRow::new("/data/y")]);
    let catalog = table.open().await;
    assert_eq!(catalog.record(&[copied(id, "there/x")]).await.unwrap(), 1);
    let after = seen("there/x", true, 0);
    assert_eq!(table.read(id), after);
    assert_eq!(catalog.record(&[copied(id, "there/x")]).await.unwrap(), 0);
    assert_eq!(catalog.record(&[copied(id, "elsewhere")]).await.unwrap(), 0);
    assert_eq!(catalog.record(&[failed(id, 0)]).await.unwrap(), 0);
    assert_eq!(table.read(id), after);
    assert_eq!(ids(&all(&catalog).await), [id + 1]);
    catalog.close().await;
}

async fn a_failure_counts_once(table: &impl Fixture) {
    let id = table.insert(&[NewRow::new("/data/x")]);
    let catalog = table.open().await;
    assert_eq!(catalog.record(&[failed(id, 0)]).await.unwrap(), 1);
    assert_eq!(catalog.record(&[failed(id, 0)]).await.unwrap(), 0);
    assert_eq!(table.read(id).attempts, Some(1));
    assert_eq!(catalog.record(&[failed(id, 3)]).await.unwrap(), 0, "not the count that was read");
    assert_eq!(catalog.record(&[failed(id, 1), failed(id, 1)]).await.unwrap(), 1);
    assert_eq!(ready(all(&catalog).await)[0].attempts, 2);
    catalog.close().await;
}

async fn the_last_failure_gives_up(table: &impl Fixture) {
    let id = table.insert(&[NewRow { attempts: Some(MAX_ATTEMPTS - 1), ..NewRow::new("/data/x") }]);
    let catalog = table.open().await;
    assert_eq!(catalog.record(&[failed(id, MAX_ATTEMPTS - 1)]).await.unwrap(), 1);
    assert_eq!(all(&catalog).await, []);
    assert_eq!(catalog.totals().await.unwrap(), Totals { given_up: 1, ..Totals::default() });
    catalog.close().await;
}

async fn a_failure_is_noted_until_the_row_is_proven(table: &impl Fixture) {
    let given_up = |path: &str| NewRow { attempts: Some(MAX_ATTEMPTS - 1), ..NewRow::new(path) };
    let id = table.insert(&[given_up("/data/x"), given_up("/data/y"), given_up("/data/z"), NewRow::new("/data/w")]);
    let catalog = table.open().await;
    let noted = async |which: Retry| {
        let notes = catalog.given_up(&which, 10).await.unwrap();
        notes
            .into_iter()
            .map(|note| (note.id.0 - id, note.path, note.attempts, note.reason.map(|(_, why)| why)))
            .collect::<Vec<_>>()
    };
    let fails = |id: i64, attempts: i64, why: &str| Settled {
        id: RecordId(id),
        attempts,
        outcome: Outcome::Failed { why: why.to_owned(), side: FailedSide::Source },
        hold: Hold::default(),
    };
    assert_eq!(noted(Retry::All).await, []);
    let long = "é".repeat(3000);
    let last = MAX_ATTEMPTS - 1;
    let batch = [fails(id, last, "it's \"gone\"\n"), fails(id + 1, last, &long), fails(id + 3, 0, "once")];
    assert_eq!(catalog.record(&batch).await.unwrap(), 3);
    // What was not counted is not noted.
    assert_eq!(catalog.record(&[fails(id, last, "again"), fails(id + 3, 7, "other")]).await.unwrap(), 0);
    let kept = noted(Retry::All).await;
    assert_eq!(kept[0], (0, "/data/x".to_owned(), MAX_ATTEMPTS, Some("it's \"gone\"\n".to_owned())));
    assert_eq!(kept[1].3.as_ref().unwrap().chars().count(), 1000, "a bounded reason");
    assert_eq!(kept.len(), 2);
    assert_eq!(noted(Retry::Ids(vec![RecordId(id + 1)])).await.len(), 1);
    assert_eq!(noted(Retry::Pattern("*/x".into())).await.len(), 1);
    assert_eq!(noted(Retry::Ids(vec![])).await, []);
    assert_eq!(catalog.given_up(&Retry::All, 1).await.unwrap().len(), 1);
    assert_eq!(catalog.keeping().await.unwrap(), Keeping::There);
    // A new chance takes it away, and so does the proof.
    assert_eq!(catalog.retry(&Retry::Ids(vec![RecordId(id)])).await.unwrap(), 1);
    let proven = Settled { attempts: MAX_ATTEMPTS, ..copied(id + 1, "there") };
    assert_eq!(catalog.record(&[proven]).await.unwrap(), 1);
    assert_eq!(table.noted(), 1, "only of the row that failed once");
    // Somebody counts by himself: what is noted is of another failure.
    assert_eq!(catalog.record(&[fails(id + 2, last, "mine")]).await.unwrap(), 1);
    assert_eq!(catalog.record(&[fails(id, 0, "first"), fails(id, 1, "second")]).await.unwrap(), 2);
    assert_eq!(table.noted(), 3);
    table.set_attempts(id + 2, MAX_ATTEMPTS + 3);
    assert_eq!(noted(Retry::All).await, [(2, "/data/z".to_owned(), MAX_ATTEMPTS + 3, None)]);
    catalog.close().await;
}

async fn a_batch_of_both_outcomes(table: &impl Fixture) {
    let id = table.insert(&[NewRow::new("/data/x"), NewRow::new("/data/y"), NewRow::new("/data/z")]);
    let catalog = table.open().await;
    assert_eq!(catalog.record(&[failed(id + 2, 0), copied(id, "a"), copied(id + 1, "b")]).await.unwrap(), 3);
    assert_eq!(table.read(id), seen("a", true, 0));
    assert_eq!(table.read(id + 1), seen("b", true, 0));
    assert_eq!(table.read(id + 2).attempts, Some(1));
    catalog.close().await;
}

async fn rows_given_up_get_a_new_chance(table: &impl Fixture) {
    let given_up = |path: &str| NewRow { attempts: Some(MAX_ATTEMPTS), ..NewRow::new(path) };
    let id = table.insert(&[
        given_up("/data/100%_a.npy"),
        given_up("/data/100x_a.npy"),
        given_up("/data/b|c.txt"),
        NewRow { target: Some("other"), ..given_up("/data/b") },
        NewRow { copied: true, ..given_up("/data/b") },
        NewRow { attempts: Some(1), ..NewRow::new("/data/b") },
    ]);
    let catalog = table.open().await;
    let waiting = async || ids(&all(&catalog).await);
    assert_eq!(waiting().await, [id + 5]);
    assert_eq!(catalog.retry(&Retry::Ids(vec![])).await.unwrap(), 0);
    assert_eq!(catalog.retry(&Retry::Pattern("/nowhere/*".into())).await.unwrap(), 0);
    assert_eq!(catalog.retry(&Retry::Pattern("*/100%_?.npy".into())).await.unwrap(), 1);
    assert_eq!(waiting().await, [id, id + 5]);
    let several = [id + 1, id + 3, id + 4, id + 5, 999_999].map(RecordId).to_vec();
    assert_eq!(catalog.retry(&Retry::Ids(several)).await.unwrap(), 1);
    assert_eq!(waiting().await, [id, id + 1, id + 5]);
    assert_eq!(catalog.retry(&Retry::All).await.unwrap(), 1);
    assert_eq!(waiting().await, [id, id + 1, id + 2, id + 5]);
    assert_eq!(table.read(id).attempts, Some(0));
    assert_eq!(table.read(id + 3).attempts, Some(MAX_ATTEMPTS), "of another target");
    assert_eq!(table.read(id + 5).attempts, Some(1), "not given up");
    catalog.close().await;
}

async fn one_archiver_at_a_time(table: &impl Fixture) {
    let (first, second) = (table.open().await, table.open().await);
    first.claim().await.unwrap();
    first.claim().await.unwrap();
    let refused = second.claim().await.unwrap_err();
    assert!(matches!(refused, CatalogError::Unavailable { .. }), "{refused:?}");
    assert!(refused.to_string().contains("another archiver"), "{refused}");
    // Looking is free.
    assert_eq!(all(&second).await, []);
    first.close().await;
    second.claim().await.unwrap();
    second.close().await;
}

async fn names_of_every_kind(table: &impl Fixture) {
    let names = [
        "it's",
        "say \"x\"",
        "a\nb\tc",
        "back\\slash",
        "50%_",
        "`;--",
        "Gr\u{fc}\u{df}e \u{65e5}\u{672c} \u{1f52d}",
        " ",
    ];
    let rows: Vec<NewRow> = names.iter().map(|name| NewRow::new(format!("/data/{name}"))).collect();
    let first = table.insert(&rows);
    let catalog = table.open().await;
    let records = ready(all(&catalog).await);
    let sources: Vec<_> = records.iter().map(|record| record.source.to_str().unwrap()).collect();
    assert_eq!(sources, rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>());
    let settled: Vec<Settled> =
        records.iter().zip(names).map(|(record, name)| copied(record.id.0, &format!("new/{name}/end"))).collect();
    assert_eq!(catalog.record(&settled).await.unwrap(), names.len() as u64);
    for (id, name) in (first..).zip(names) {
        assert_eq!(table.read(id), seen(&format!("new/{name}/end"), true, 0));
    }
    catalog.close().await;
}

async fn two_recorders_change_each_row_once(table: &impl Fixture) {
    let count = 200;
    let first = table.insert(&vec![NewRow::new("/data/x"); count as usize]);
    let (one, two) = (table.open().await, table.open().await);
    let batches = |name: &'static str, backwards: bool| {
        let mut rows: Vec<Settled> = (first..first + count).map(|id| copied(id, name)).collect();
        if backwards {
            rows.reverse();
        }
        rows.chunks(50).map(<[Settled]>::to_vec).collect::<Vec<_>>()
    };
    let run = async |catalog: &AnyCatalog, batches: Vec<Vec<Settled>>| {
        let mut changed = 0;
        for batch in batches {
            changed += catalog.record(&batch).await.unwrap();
        }
        changed
    };
    let (by_one, by_two) = tokio::join!(run(&one, batches("one", false)), run(&two, batches("two", true)));
    assert_eq!(by_one + by_two, count as u64);
    let ones = (first..first + count).filter(|id| table.read(*id).path == "one").count();
    assert_eq!(ones as u64, by_one, "each recorder's count is of its own rows");
    one.close().await;
    two.close().await;
}

async fn recorders_and_a_producer_do_not_block_each_other(table: &impl Fixture) {
    let first = table.insert(&vec![NewRow::new("/data/x"); 300]);
    let catalog = table.open().await;
    let done = AtomicBool::new(false);
    let recorder = async {
        let mut id = first;
        let mut attempts = 0;
        // Rows that exist and one that does not: a gap is what a careless isolation level would lock.
        while !done.load(Ordering::Relaxed) {
            let mut batch: Vec<Settled> = (id..id + 30).map(|id| failed(id, attempts)).collect();
            batch.push(copied(i64::from(i32::MAX), "x"));
            catalog.record(&batch).await.unwrap();
            catalog.pending(RecordId(0), 50).await.unwrap();
            (id, attempts) = if id + 60 > first + 300 { (first, attempts + 1) } else { (id + 30, attempts) };
        }
    };
    let producer = async {
        // Fails after a second of waiting on MySQL, and after five on SQLite, where one writes at a time.
        for n in 0..20 {
            tokio::task::block_in_place(|| table.insert(&[NewRow::new(format!("/new/{n}"))]));
            tokio::task::yield_now().await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(recorder, producer);
    assert_eq!(catalog.newest().await.unwrap(), RecordId(first + 319));
    catalog.close().await;
}

async fn a_large_backlog_is_read_in_pages(table: &impl Fixture) {
    table.insert_many(100_000);
    let catalog = table.open().await;
    let (mut after, mut found) = (RecordId(0), 0);
    loop {
        let page = catalog.pending(after, 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        assert!(page.len() <= 1000);
        assert!(page.is_sorted_by_key(Pending::id) && page[0].id() > after);
        after = last.id();
        found += page.len();
    }
    assert_eq!(found, 100_000);
    assert_eq!(catalog.totals().await.unwrap().pending, 100_000);
    catalog.close().await;
}

async fn names_that_no_row_has_are_told(table: &impl Fixture) {
    let catalog = table.open().await;
    let chosen = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let strangers =
        async |names: &[&str]| pysmurf_archiver::catalog::strangers(&catalog, &chosen(names)).await.unwrap();
    assert_eq!(strangers(&["anything"]).await, None, "an empty table");
    let row = NewRow::new("/data/x");
    table.insert(&[NewRow { target: Some("other"), ..row.clone() }, NewRow { target: None, ..row.clone() }, row]);
    assert_eq!(strangers(&[TARGET]).await, None);
    assert_eq!(strangers(&["other", TARGET]).await, None);
    let told = strangers(&[TARGET, "smrf", "o'ther"]).await.unwrap();
    for word in ["\"smrf\", \"o'ther\";", "\"other\", \"smurf\"", "mistyped"] {
        assert!(told.contains(word), "{told}");
    }
    catalog.close().await;
}
