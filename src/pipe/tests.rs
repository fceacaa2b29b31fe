use super::*;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 251) as u8).collect()
}

#[test]
fn bytes_cross_between_threads_in_order() {
    let (mut reader, mut writer) = pipe(DEFAULT_CAPACITY);
    let sent = pattern(3_000_001);
    let expected = sent.clone();
    let writing = thread::spawn(move || {
        for piece in sent.chunks(70_001) {
            writer.write_all(piece).unwrap();
            writer.flush().unwrap();
        }
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    writing.join().unwrap();
    assert!(got == expected);
}

#[test]
fn whole_buffers_cross_without_a_copy_and_within_the_capacity() {
    let (mut reader, mut writer) = pipe(100_000);
    let mut buffer = pattern(60_000);
    let address = buffer.as_ptr();
    writer.give(&mut buffer).unwrap();
    assert!(buffer.is_empty());
    assert!(matches!(reader.front().unwrap(), Front::Data(bytes) if bytes.as_ptr() == address));
    assert_eq!(writer.room().unwrap(), 40_000);
    // Small ones, those that must wait, and those that never fit, in order with what is written.
    let expected = [&pattern(60_000)[..], b"small", &pattern(50_000), &pattern(250_000), b"end"].concat();
    let writing = thread::spawn(move || {
        for mut bytes in [b"small".to_vec(), pattern(50_000), pattern(250_000)] {
            writer.give(&mut bytes).unwrap();
            assert!(bytes.is_empty());
        }
        writer.write_all(b"end").unwrap();
    });
    let mut got = Vec::new();
    let mut most = [0; 7000];
    while let n @ 1.. = reader.read(&mut most).unwrap() {
        assert!(reader.shared.lock().used <= 100_000);
        got.extend_from_slice(&most[..n]);
    }
    writing.join().unwrap();
    assert!(got == expected);
    let (reader, mut writer) = pipe(100_000);
    drop(reader);
    assert_eq!(writer.give(&mut pattern(60_000)).unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn nothing_beyond_the_capacity_is_taken() {
    let (mut reader, mut writer) = pipe(1000);
    assert_eq!(writer.try_write(&[7; 1500]).unwrap(), 1000);
    assert_eq!(writer.room().unwrap(), 0);
    assert_eq!(writer.try_write(&[7]).unwrap_err().kind(), ErrorKind::WouldBlock);
    // What the reader holds but has not consumed still counts.
    assert!(matches!(reader.front().unwrap(), Front::Data(bytes) if bytes.len() == 1000));
    assert_eq!(writer.room().unwrap(), 0);
    reader.consume(600);
    assert_eq!(writer.room().unwrap(), 600);
}

#[test]
fn the_front_stays_at_its_address_while_more_is_written() {
    let (mut reader, mut writer) = pipe(1 << 20);
    writer.write_all(b"first").unwrap();
    let Front::Data(before) = reader.front().unwrap() else { panic!("no data") };
    let (address, len) = (before.as_ptr(), before.len());
    writer.write_all(&[1; 500_000]).unwrap();
    let Front::Data(again) = reader.front().unwrap() else { panic!("no data") };
    assert_eq!((again.as_ptr(), again.len()), (address, len));
}

#[test]
fn a_dropped_writer_is_the_end_after_what_was_written() {
    let (mut reader, mut writer) = pipe(10);
    writer.write_all(b"abc").unwrap();
    drop(writer);
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"abc");
    assert_eq!(reader.front().unwrap(), Front::End);
}

#[test]
fn a_dropped_reader_breaks_a_waiting_writer() {
    let (reader, mut writer) = pipe(4);
    let writing = thread::spawn(move || writer.write_all(&[0; 64]).unwrap_err().kind());
    drop(reader);
    assert_eq!(writing.join().unwrap(), ErrorKind::BrokenPipe);
}

#[test]
fn a_closed_pipe_fails_on_both_sides_at_once() {
    let (mut reader, mut writer) = pipe(64);
    writer.write_all(b"never read").unwrap();
    let closer = reader.closer();
    closer.fail(ErrorKind::TimedOut, "No byte moved");
    closer.close();
    let mut buf = [0; 4];
    assert_eq!(reader.read(&mut buf).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(writer.write(b"x").unwrap_err().to_string(), "No byte moved");
}

#[test]
fn closing_wakes_a_waiting_reader() {
    let (mut reader, writer) = pipe(64);
    let closer = writer.closer();
    let reading = thread::spawn(move || reader.read(&mut [0; 4]).unwrap_err().kind());
    closer.close();
    assert_eq!(reading.join().unwrap(), ErrorKind::ConnectionAborted);
}

#[test]
fn a_panicking_writer_is_not_mistaken_for_the_end() {
    let (mut reader, writer) = pipe(64);
    let writing = thread::spawn(move || {
        let _writer = writer;
        panic!("on purpose");
    });
    assert!(writing.join().is_err());
    assert_eq!(reader.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::ConnectionAborted);
}

#[test]
fn stalls_are_limited() {
    let (mut reader, mut writer) = pipe(4);
    reader.set_stall_limit(Some(Duration::from_millis(20)));
    writer.set_stall_limit(Some(Duration::from_millis(20)));
    assert_eq!(reader.read(&mut [0; 4]).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(writer.reader_waits_since(), None);
    assert_eq!(writer.write_all(&[0; 5]).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(reader.read(&mut [0; 8]).unwrap(), 4);
}

#[test]
fn the_other_side_is_woken_for_data_space_and_ends() {
    let (mut reader, mut writer) = pipe(8);
    let (data, space) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (on_data, on_space) = (data.clone(), space.clone());
    reader.on_data(Box::new(move || _ = on_data.fetch_add(1, Ordering::Relaxed)));
    writer.on_space(Box::new(move || _ = on_space.fetch_add(1, Ordering::Relaxed)));
    writer.write_all(b"12345678").unwrap();
    assert_eq!(data.load(Ordering::Relaxed), 1);
    assert_eq!(reader.try_read(&mut [0; 8]).unwrap(), 8);
    assert_eq!(space.load(Ordering::Relaxed), 1);
    drop(writer);
    assert_eq!(data.load(Ordering::Relaxed), 2);
    reader.closer().close();
    assert_eq!((data.load(Ordering::Relaxed), space.load(Ordering::Relaxed)), (3, 2));
}

#[test]
fn a_pair_carries_both_ways_and_closes_together() {
    let (mut a, mut b) = pair();
    a.writer.write_all(b"to b").unwrap();
    b.writer.write_all(b"to a").unwrap();
    let mut buf = [0; 4];
    b.reader.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"to b");
    a.reader.read_exact(&mut buf).unwrap();
    assert_eq!(&buf, b"to a");
    a.closer.close();
    assert!(b.reader.read(&mut buf).is_err());
    assert!(b.writer.write(&buf).is_err());
    assert!(a.reader.read(&mut buf).is_err());
}

#[test]
fn what_came_before_a_break_is_read_before_it() {
    let (mut reader, mut writer) = pipe(100);
    writer.write_all(b"came").unwrap();
    writer.break_off(ErrorKind::ConnectionReset, "It broke");
    let mut got = Vec::new();
    let error = reader.read_to_end(&mut got).unwrap_err();
    assert_eq!((&got[..], error.kind()), (&b"came"[..], ErrorKind::ConnectionReset));
    assert_eq!(error.to_string(), "It broke");
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: proptest::test_runner::RngSeed::Fixed(1), cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_mix_of_the_faces_gives_the_same_bytes(
        capacity in 1usize..300_000,
        steps in proptest::collection::vec((0usize..200_000, 0usize..200_000), 1..12),
    ) {
        let (mut reader, mut writer) = pipe(capacity);
        let (mut sent, mut got) = (Vec::new(), Vec::new());
        for (write, take) in steps {
            let bytes: Vec<u8> = (sent.len()..sent.len() + write).map(|i| (i % 251) as u8).collect();
            match writer.try_write(&bytes) {
                Ok(n) => sent.extend_from_slice(&bytes[..n]),
                Err(e) => prop_assert_eq!(e.kind(), ErrorKind::WouldBlock),
            }
            let before = got.len();
            if let Front::Data(front) = reader.front().unwrap() {
                got.extend_from_slice(&front[..take.min(front.len())]);
            }
            reader.consume(got.len() - before);
            prop_assert_eq!(writer.room().unwrap(), capacity - (sent.len() - got.len()));
        }
        drop(writer);
        reader.read_to_end(&mut got).unwrap();
        prop_assert!(got == sent);
    }
}
