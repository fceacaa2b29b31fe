use super::*;

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn sh(script: &str) -> Link {
    Child::local(words(&["sh", "-c", script])).stall_limit(Some(SOON)).open(&[]).unwrap()
}

const SOON: Duration = Duration::from_secs(60);

#[test]
fn bytes_go_both_ways_at_once() {
    let Link { mut reader, mut writer, remote, .. } = sh("exec cat");
    let sent: Vec<u8> = (0..3_000_000u32).flat_map(u32::to_le_bytes).collect();
    let copy = sent.clone();
    let writing = thread::spawn(move || writer.write_all(&copy));
    let mut got = Vec::new();
    reader.read_to_end(&mut got).unwrap();
    writing.join().unwrap().unwrap();
    assert!(got == sent);
    assert_eq!(remote.wait(SOON), Some(Ending::Exited(0)));
}

#[test]
fn run_tells_status_and_both_outputs() {
    let mut child = Child::local(words(&["rsync"]));
    let output = child.run(&words(&["sh", "-c", "echo out; echo err >&2; exit 3"])).unwrap();
    assert_eq!((output.status, &output.stdout[..], &output.stderr[..]), (Some(3), &b"out\n"[..], &b"err\n"[..]));
    let killed = child.run(&words(&["sh", "-c", "kill -9 $$"])).unwrap();
    assert_eq!(killed.status, None);
    let long = child.run(&words(&["sh", "-c", "head -c 300000 /dev/zero; head -c 300000 /dev/zero >&2"])).unwrap();
    assert_eq!((long.status, long.stdout.len(), long.stderr.len()), (Some(0), 65536, 65536));
}

#[test]
fn a_missing_program_is_named() {
    let error = Child::local(words(&["/nonexistent/rsync"])).open(&[]).err().unwrap();
    assert!(error.to_string().contains("/nonexistent/rsync"), "{error}");
}

#[test]
fn closing_fails_both_halves_and_ends_a_stubborn_program() {
    let Link { mut reader, mut writer, closer, remote, .. } =
        sh("trap '' TERM; echo ready; while :; do sleep 0.1; done");
    let mut line = [0; 6];
    reader.read_exact(&mut line).unwrap();
    let reading = thread::spawn(move || reader.read(&mut [0; 16]).unwrap_err().kind());
    closer.close();
    assert_eq!(reading.join().unwrap(), ErrorKind::ConnectionAborted);
    assert_eq!(writer.write(b"x").unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!(remote.wait(SOON), Some(Ending::Signalled("KILL".to_owned())));
}

#[test]
fn a_silent_program_stalls_reads_and_writes() {
    let mut child = Child::local(words(&["sleep", "1000"])).stall_limit(Some(Duration::from_millis(200)));
    let Link { mut reader, mut writer, closer, remote, .. } = child.open(&[]).unwrap();
    assert_eq!(reader.read(&mut [0; 16]).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(writer.write_all(&[0; 1 << 20]).unwrap_err().kind(), ErrorKind::TimedOut);
    closer.close();
    assert_eq!(remote.wait(SOON), Some(Ending::Signalled("TERM".to_owned())));
}

#[test]
fn a_busy_writer_keeps_the_reader_from_stalling() {
    let mut child =
        Child::local(words(&["sh", "-c", "cat >/dev/null; echo done"])).stall_limit(Some(Duration::from_secs(2)));
    let Link { mut reader, mut writer, .. } = child.open(&[]).unwrap();
    let writing = thread::spawn(move || {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            writer.write_all(&[0; 65536]).unwrap();
        }
    });
    let mut got = String::new();
    reader.read_to_string(&mut got).unwrap();
    writing.join().unwrap();
    assert_eq!(got, "done\n");
}
