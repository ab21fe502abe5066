use crate::command::Bench;

#[test]
fn init_writes_an_application_once() {
    let bench = Bench::new();
    let first = bench.run(["init", "python", "app"]);
    assert_eq!(
        (first.status, first.stdout.as_str(), first.stderr.as_str()),
        (
            Some(0),
            "app/services.yaml\napp/sender.py\napp/receiver.py\napp/README.md\n",
            "zipline: run it with `zipline up app/services.yaml`\n"
        )
    );
    let second = bench.run(["init", "python", "app"]);
    assert_eq!((second.status, second.stdout.as_str()), (Some(2), ""));
    assert!(second.stderr.contains("app/sender.py"), "{}", second.stderr);
}

#[test]
fn its_python_compiles() {
    let bench = Bench::new();
    assert_eq!(bench.run(["init", "python", "."]).status, Some(0));
    let check = "import ast; [ast.parse(open(name).read()) for name in ('sender.py', 'receiver.py')]";
    let done = std::process::Command::new("python3").args(["-c", check]).current_dir(bench.folder()).status();
    assert!(done.unwrap().success());
}

#[test]
fn bench_without_its_program_says_how_to_get_it() {
    let bench = Bench::new();
    // Beside a copy of the binary there is nothing else.
    let copy = bench.folder().join("zipline");
    std::fs::copy(env!("CARGO_BIN_EXE_zipline"), &copy).unwrap();
    let done = std::process::Command::new(&copy).args(["bench", "invoke", "--json"]).output().unwrap();
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(3), b"".as_slice()));
    let message = String::from_utf8(done.stderr).unwrap();
    assert!(message.contains("zipline-bench is not there: build it with"), "{message}");
}
