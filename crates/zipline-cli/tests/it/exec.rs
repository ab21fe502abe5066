use std::io::{BufRead, BufReader, Read};

use crate::command::{Bench, Done};

#[test]
fn the_program_takes_the_place_of_the_shim() {
    let bench = Bench::new();
    let own = std::process::id().to_string();
    let script = "cat; echo \"$0 $1\"; exit 7";
    let done =
        bench.run_with_input(["__exec", "--parent", &own, "--", "sh", "-c", script, "a", "--b"], b"in ");
    assert_eq!(done, Done { status: Some(7), stdout: "in a --b\n".into(), stderr: String::new() });
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let done = Bench::new().run(["__exec", "--", "/none/such"]);
    assert_eq!(
        done,
        Done {
            status: Some(127),
            stdout: String::new(),
            stderr: "zipline: cannot start \"/none/such\": No such file or directory (os error 2)\n".into(),
        }
    );
}

#[test]
fn nothing_starts_once_the_parent_is_gone() {
    let done = Bench::new().run(["__exec", "--parent", "1", "--", "echo", "started"]);
    assert_eq!(done, Done { status: Some(1), stdout: String::new(), stderr: String::new() });
}

/// The shell is the shim's parent; its end must be the end of `cat`, whose standard output is what we read from.
#[test]
fn the_program_ends_with_its_parent() {
    let script = "exec 3<&0; \"$0\" __exec --parent $$ -- sh -c 'echo up; exec cat' <&3 & wait";
    let mut shell = std::process::Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_zipline")])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Without its parent's end `cat` would wait for this to close.
    let _open = shell.stdin.take();
    let mut output = BufReader::new(shell.stdout.take().unwrap());
    let mut text = String::new();
    output.read_line(&mut text).unwrap();
    assert_eq!(text, "up\n");
    shell.kill().unwrap();
    shell.wait().unwrap();
    output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "up\n");
}

#[test]
fn root_can_give_the_program_a_user_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        let done = Bench::new().run(["__exec", "--uid", "12345", "--gid", "12345", "--", "true"]);
        assert_eq!(done.status, Some(127));
        assert!(done.stderr.contains("cannot leave the groups"), "{}", done.stderr);
        return;
    }
    let script = "id -u; id -g; id -G";
    let done = Bench::new().run(["__exec", "--uid", "12345", "--gid", "12346", "--", "sh", "-c", script]);
    assert_eq!((done.status, done.stdout.as_str()), (Some(0), "12345\n12346\n12346\n"));
}
