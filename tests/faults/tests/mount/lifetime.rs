//! The daemon's own life: clean ends, kills, stale mounts.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use super::*;

#[test]
fn a_clean_unmount_stores_everything_and_leaves_no_trace() {
    for options in [ordered(), strict()] {
        on(options.clone(), |bed| {
            fs::create_dir(bed.path("d")).unwrap();
            fs::write(bed.path("d/f"), b"never synced").unwrap();
            let backing = bed.fs().backing().to_path_buf();
            let mount = bed.fs().path().to_path_buf();
            bed.fs.take().unwrap().unmount().unwrap();
            assert_eq!(fs::read(backing.join("d/f")).unwrap(), b"never synced");
            assert_eq!(fs::read_dir(&backing).unwrap().count(), 1);
            assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);
            bed.mount(options);
            assert_eq!(bed.read("d/f"), b"never synced");
        });
    }
}

#[test]
fn open_files_do_not_hinder_the_unmount() {
    on(ordered(), |bed| {
        let file = bed.stored("f", b"x");
        bed.fs.take().unwrap().unmount().unwrap();
        assert!(file.write_at(b"y", 0).is_err());
        bed.mount(ordered());
        assert_eq!(bed.read("f"), b"x");
    });
}

/// Starts the daemon by hand, so that its process can be treated badly. It ends when the second value is dropped, so
/// that a test that fails leaves no mount behind.
fn daemon(bed: &Bed) -> (std::process::Child, std::process::ChildStdin) {
    let directory = bed.directory.path();
    let mut child = Command::new(env!("CARGO_BIN_EXE_nsquorum-faultfs"))
        .arg("--backing")
        .arg(directory.join("backing"))
        .arg("--mount")
        .arg(directory.join("mount"))
        .arg("--control")
        .arg(directory.join("control"))
        .args(["--metadata", "strict", "--until-stdin-closes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let lifeline = child.stdin.take().unwrap();
    (child, lifeline)
}

#[test]
fn a_killed_daemon_is_a_crash_and_its_dead_mount_is_taken_over() {
    on(ordered(), |bed| {
        bed.fs.take().unwrap().unmount().unwrap();
        let mount = bed.directory.path().join("mount");
        let (mut child, _lifeline) = daemon(bed);
        fs::write(mount.join("f"), b"kept").unwrap();
        File::open(mount.join("f")).unwrap().sync_all().unwrap();
        sync_directory(&mount);
        fs::write(mount.join("g"), b"lost").unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(errno(fs::metadata(mount.join("f"))), libc::ENOTCONN);
        bed.mount(ordered());
        assert_eq!(bed.names(""), ["f"]);
        assert_eq!(bed.read("f"), b"kept");
    });
}

#[test]
fn sigterm_is_a_clean_end() {
    on(ordered(), |bed| {
        bed.fs.take().unwrap().unmount().unwrap();
        let mount = bed.directory.path().join("mount");
        let (mut child, _lifeline) = daemon(bed);
        fs::write(mount.join("f"), b"never synced").unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);
        assert_eq!(
            fs::read(bed.directory.path().join("backing/f")).unwrap(),
            b"never synced"
        );
    });
}

#[test]
fn the_mount_ends_with_the_process_that_wanted_it() {
    on(ordered(), |bed| {
        bed.fs.take().unwrap().unmount().unwrap();
        let (mut child, lifeline) = daemon(bed);
        fs::write(bed.directory.path().join("mount/f"), b"never synced").unwrap();
        drop(lifeline);
        assert!(child.wait().unwrap().success());
        assert_eq!(
            fs::read(bed.directory.path().join("backing/f")).unwrap(),
            b"never synced"
        );
    });
}

#[test]
fn a_request_that_makes_no_sense_is_answered() {
    on(ordered(), |bed| {
        bed.fs.take().unwrap().unmount().unwrap();
        let (mut child, _lifeline) = daemon(bed);
        let socket = bed.directory.path().join("control");
        let ask = |request: &str| {
            let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
            writeln!(stream, "{request}").unwrap();
            let mut answer = String::new();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stream), &mut answer).unwrap();
            answer
        };
        assert!(ask("nonsense").starts_with(r#"{"error":"not a request"#));
        assert!(ask(r#"{"cmd":"fail","fault":{"calls":["fly"],"action":"short"}}"#).starts_with(r#"{"error""#));
        let fault =
            r#"{"cmd":"fail","fault":{"calls":["fsync"],"action":{"error":"EIO"},"path":"*.log","after":3,"times":1}}"#;
        assert_eq!(ask(fault), "{\"ok\":{\"fault\":1}}\n");
        assert_eq!(ask(r#"{"cmd":"crash"}"#), "{\"ok\":{}}\n");
        assert_eq!(ask(r#"{"cmd":"space","free":10}"#), "{\"ok\":{}}\n");
        assert_eq!(ask(r#"{"cmd":"unmount"}"#), "{\"ok\":{}}\n");
        assert!(child.wait().unwrap().success());
    });
}

#[test]
fn a_process_that_is_killed_loses_what_it_had_not_synced() {
    on(ordered(), |bed| {
        let script = "echo synced > f; sync f; echo unsynced >> f; echo written; read wait";
        let mut child = Command::new("sh")
            .args(["-c", script])
            .current_dir(bed.fs().path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(bed.read("f"), b"synced\nunsynced\n");
        bed.crash();
        assert_eq!(bed.read("f"), b"synced\n");
    });
}
