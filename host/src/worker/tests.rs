//! Workers that are shell scripts: how each way to die is told apart.

use std::time::Duration;

use super::protocol::{Event, PROTOCOL_VERSION, Request};
use super::{Death, FailureKind, Interrupt, Supervisor, WorkerError, WorkerOptions};

fn hello() -> String {
    let event = Event::Hello { protocol: PROTOCOL_VERSION, host_version: "t".into() };
    format!("echo '{}'; ", serde_json::to_string(&event).unwrap())
}

fn options(script: &str) -> WorkerOptions {
    WorkerOptions {
        program: Some("/bin/sh".into()),
        arguments: vec!["-c".into(), script.to_owned()],
        threads: 1,
        ..WorkerOptions::default()
    }
}

fn describe() -> Request {
    Request::Describe { path: "/x.so".into() }
}

/// Starts a script after a greeting, asks it something, and returns what came of it.
fn ask(script: &str, change: impl Fn(&mut WorkerOptions)) -> WorkerError {
    let mut options = options(&format!("{}{script}", hello()));
    change(&mut options);
    let mut worker = match Supervisor::spawn(&options) {
        Ok(worker) => worker,
        Err(error) => return error,
    };
    worker.call(describe(), &Interrupt::never(), &mut |_| ()).expect_err("no such worker answers")
}

#[test]
fn each_way_to_die_has_its_line() {
    let cases: &[(&str, FailureKind, &[&str])] = &[
        ("read x; kill -SEGV $$", FailureKind::Crashed, &["crashed: SIGSEGV"]),
        (
            "read x; echo 'oh dear' >&2; kill -ABRT $$",
            FailureKind::Crashed,
            &["SIGABRT", "its last words: oh dear"],
        ),
        ("read x; kill -ILL $$", FailureKind::Crashed, &["SIGILL"]),
        ("read x; kill -FPE $$", FailureKind::Crashed, &["SIGFPE"]),
        ("read x; kill -BUS $$", FailureKind::Crashed, &["SIGBUS"]),
        ("read x; kill -KILL $$", FailureKind::Killed, &["killed from outside (SIGKILL)"]),
        ("read x; kill -TERM $$", FailureKind::Killed, &["ended from outside (SIGTERM)"]),
        (
            "read x; echo 'memory allocation of 123 bytes failed' >&2; kill -ABRT $$",
            FailureKind::OutOfMemory,
            &["out of memory", "123 bytes"],
        ),
        (
            "read x; echo \"  what():  std::bad_alloc\" >&2; kill -ABRT $$",
            FailureKind::OutOfMemory,
            &["out of memory", "bad_alloc"],
        ),
        ("read x; exit 0", FailureKind::Misbehaved, &["exited with code 0 before it had finished"]),
        ("read x; echo bye >&2; exit 7", FailureKind::Misbehaved, &["exited with code 7", "bye"]),
        (
            "read x; echo 'Hello from a plugin'; sleep 5",
            FailureKind::Misbehaved,
            &["not the worker protocol", "Hello from"],
        ),
        ("read x; echo '{\"event\":\"hel'; sleep 5", FailureKind::Misbehaved, &["not the worker protocol"]),
        ("read x; exec >&-; sleep 30", FailureKind::Misbehaved, &["closed its output"]),
    ];
    for (script, kind, says) in cases {
        let WorkerError::Died(death) = ask(script, |_| ()) else { panic!("{script}: did not die") };
        let text = death.to_string();
        assert_eq!(death.kind(), *kind, "{script}: {text}");
        assert!(says.iter().all(|s| text.contains(s)) && !text.contains('\n'), "{script}: {text}");
    }
}

#[test]
fn a_worker_that_shows_no_progress_is_killed_and_one_that_does_is_not() {
    let short = |o: &mut WorkerOptions| o.hang_limit = Some(Duration::from_secs(1));
    let WorkerError::Died(death) = ask("read x; sleep 60", short) else { panic!("must hang") };
    assert_eq!(death, Death::Hung { seconds: 1 });
    assert!(death.to_string().contains("--hang-limit"));

    let progress = serde_json::to_string(&Event::Progress { done: 1, total: 2, what: "w".into() }).unwrap();
    let script = format!("read x; for i in 1 2 3 4 5; do echo '{progress}'; sleep 0.5; done; exit 9");
    let WorkerError::Died(death) = ask(&script, short) else { panic!("must exit") };
    assert!(matches!(death, Death::Exited { code: 9, .. }), "{death}");
}

#[test]
fn a_worker_beyond_its_memory_limit_is_killed() {
    let error = ask("read x; sleep 60", |o| o.memory_limit_bytes = Some(1 << 10));
    let WorkerError::Died(death) = error else { panic!("must die") };
    assert!(matches!(death, Death::MemoryLimit { limit: 1024, .. }), "{death}");
    assert!(death.to_string().contains("--memory-limit"));
}

#[test]
fn greetings_are_checked() {
    let spawn = |script: &str| match Supervisor::spawn(&options(script)) {
        Err(WorkerError::Died(death)) => death,
        Err(other) => panic!("{script}: {other}"),
        Ok(_) => panic!("{script}: must not be taken for a worker"),
    };
    let old = "echo '{\"event\":\"hello\",\"protocol\":0,\"host_version\":\"0\"}'; sleep 5";
    assert_eq!(spawn(old), Death::Version { theirs: 0 });
    assert!(matches!(spawn("echo usage: sh"), Death::Garbage { .. }));
    assert!(matches!(spawn("exit 3"), Death::Exited { code: 3, .. }));
    let missing = WorkerOptions { program: Some("/no/such/program".into()), ..WorkerOptions::default() };
    assert!(matches!(Supervisor::spawn(&missing), Err(WorkerError::Spawn { .. })));
}

#[test]
fn one_interrupt_asks_and_two_kill() {
    let cancelled = serde_json::to_string(&Event::Cancelled).unwrap();
    let obeys = format!("{}read a; read b; echo '{cancelled}'; sleep 5", hello());
    let mut worker = Supervisor::spawn(&options(&obeys)).unwrap();
    let interrupt = Interrupt::never();
    let later = interrupt.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        later.trigger();
    });
    let result = worker.call(describe(), &interrupt, &mut |_| ());
    assert!(matches!(result, Err(WorkerError::Cancelled)), "{result:?}");
    thread.join().unwrap();
    // Nothing is begun after an interrupt.
    assert!(matches!(worker.call(describe(), &interrupt, &mut |_| ()), Err(WorkerError::Cancelled)));

    let deaf = format!("{}read a; sleep 60", hello());
    let mut worker = Supervisor::spawn(&options(&deaf)).unwrap();
    let interrupt = Interrupt::never();
    let later = interrupt.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        later.trigger();
        later.trigger();
    });
    let result = worker.call(describe(), &interrupt, &mut |_| ());
    assert!(matches!(result, Err(WorkerError::Died(Death::ByUser))), "{result:?}");
    thread.join().unwrap();
}

#[test]
fn what_a_worker_started_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; {}read x; sleep 600", file.display(), hello());
    let worker = Supervisor::spawn(&options(&script)).unwrap();
    let pid = std::fs::read_to_string(&file).unwrap();
    let alive = || {
        // A process that nobody waits for stays as a zombie.
        std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
    };
    assert!(alive());
    drop(worker);
    for _ in 0..200 {
        if !alive() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("process {pid} outlives its worker");
}

#[test]
fn progress_and_log_lines_reach_the_caller_and_chatter_the_log() {
    let events = [
        Event::Progress { done: 1, total: 2, what: "a".into() },
        Event::Log { level: super::protocol::Level::Info, message: "b".into() },
        Event::Failed { kind: super::protocol::Failure::Invalid, message: "no".into() },
    ];
    let lines: Vec<String> = events.iter().map(|e| serde_json::to_string(e).unwrap()).collect();
    let script = format!(
        "{}read x; echo chatter >&2; sleep 0.2; printf '%s\\n' '{}' '{}' '{}'; sleep 5",
        hello(),
        lines[0],
        lines[1],
        lines[2]
    );
    let mut worker = Supervisor::spawn(&options(&script)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    worker.set_log(Some(std::fs::File::create(&log).unwrap()));
    let mut seen = Vec::new();
    let result = worker.call(describe(), &Interrupt::never(), &mut |event| seen.push(format!("{event:?}")));
    assert!(matches!(result, Err(WorkerError::Failed { message, .. }) if message == "no"));
    assert_eq!(seen.len(), 2);
    assert_eq!(std::fs::read_to_string(log).unwrap(), "chatter\n");
}

#[test]
fn requests_and_events_come_back_as_they_were() {
    use super::protocol::{DataAccess, PluginOrder, StageOrder, Work};
    let order = StageOrder {
        key: "k".into(),
        directory: "/d".into(),
        seed: u64::MAX,
        threads: 2,
        data: DataAccess { folders: vec!["/f".into()] },
        expected_data: [("a".to_owned(), "b".to_owned())].into(),
        work: Work::Evaluate {
            model: "/m".into(),
            runner: PluginOrder { path: "/p.so".into(), options: serde_json::Map::new() },
            task: "arc_easy".into(),
            limit: Some(3),
            shots: 0,
        },
    };
    let request = Request::Stage(Box::new(order));
    let text = serde_json::to_string(&request).unwrap();
    assert!(!text.contains('\n'));
    let back: Request = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), text);
}
