use super::*;

const GOOD: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: recog
  namespace: vid
  labels: {team: video}
spec:
  traffic:
    - latestRevision: true
      percent: 100
  template:
    metadata:
      name: recog-v2
      labels: {app: recog}
      annotations:
        autoscaling.knative.dev/min-scale: "2"
        autoscaling.knative.dev/maxScale: "8"
        autoscaling.knative.dev/initialScale: "9"
        autoscaling.knative.dev/initial-scale: "3"
        zipline.internal/mode: receive
        zipline.internal/threshold: 64KiB
        zipline.internal/budget: 64MiB
    spec:
      containerConcurrency: 4
      timeoutSeconds: 60
      containers:
        - name: main
          image: example.com/recog
          command: ["python3", "recog.py"]
          args: [--fast]
          env:
            - name: MODEL
              value: small
          ports:
            - name: h2c
              containerPort: 8080
          readinessProbe:
            httpGet: {path: /ready, port: 8080}
            periodSeconds: 2
---
# An empty document is nothing.
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: plain}
spec: {template: {spec: {containers: [{command: [serve]}]}}}
"#;

fn read(text: &str) -> Result<Vec<ServiceManifest>, ManifestError> {
    parse(text, Path::new("app.yaml"), Path::new("/"))
}

/// A good one-container manifest of which one part is replaced.
fn with(metadata: &str, annotations: &str, spec: &str, container: &str) -> String {
    format!(
        "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {metadata}\nspec:\n  template:\n    metadata:\n      annotations: {annotations}\n    spec:\n      {spec}\n      containers:\n        - image: x\n          {container}\n"
    )
}

/// Every complaint about a text, one per line.
fn complaints(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn everything_is_read() {
    let services = read(GOOD).unwrap();
    let recog = &services[0];
    assert_eq!((recog.name.to_string().as_str(), recog.revision.as_str()), ("recog.vid", "recog-v2"));
    assert_eq!(recog.line, 2);
    assert_eq!(recog.scale, Scale { min: 2, max: 8, initial: Some(3) });
    assert_eq!(
        recog.settings,
        Settings { mode: Some(Mode::Receive), threshold_bytes: Some(65_536), budget_bytes: Some(64 << 20) }
    );
    assert_eq!((recog.container_concurrency, recog.timeout.as_secs()), (4, 60));
    assert_eq!(recog.container.command, ["python3", "recog.py"]);
    assert_eq!(recog.container.args, ["--fast"]);
    assert_eq!(recog.container.env, [("MODEL".to_owned(), "small".to_owned())]);
    assert_eq!(recog.container.protocol, PortProtocol::H2c);
    assert_eq!(recog.container.working_dir, Path::new("/"));
    assert_eq!(
        recog.container.readiness_probe.as_ref().unwrap().to_json("127.0.0.1:4000".parse().unwrap()),
        r#"{"httpGet":{"host":"127.0.0.1","path":"/ready","port":4000,"scheme":"HTTP"},"periodSeconds":2,"successThreshold":1}"#
    );
    assert_eq!(recog.notes, ["image example.com/recog is not used: the command runs as a local process"]);

    let plain = &services[1];
    assert_eq!((plain.name.to_string().as_str(), plain.revision.as_str()), ("plain.default", "plain-00001"));
    assert_eq!((plain.container_concurrency, plain.timeout.as_secs()), (0, 300));
    assert_eq!(plain.scale, Scale::default());
    assert!(plain.container.readiness_probe.is_none());
}

#[test]
fn an_image_alone_is_refused_with_the_lines_to_add() {
    let text = with("{name: a}", "{}", "timeoutSeconds: 5", "name: main");
    assert_eq!(
        complaints(&text),
        "app.yaml:11: spec.template.spec.containers[0].command: missing: images are not run here, local processes are; \
         add below line 11, with your program and its folder:\n          command: [\"python3\", \"app.py\"]\n          workingDir: ."
    );
    // Followed to the letter, it is a manifest.
    let mut lines: Vec<&str> = text.lines().collect();
    lines.insert(11, "          command: [\"python3\", \"app.py\"]\n          workingDir: .");
    assert!(read(&lines.join("\n")).is_ok());
}

#[test]
fn all_complaints_come_at_once_in_order() {
    let text = r#"apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: Recog
  annotations: {a: b}
spec:
  traffic: [{revisionName: recog-00001, percent: 100}]
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/target: "10"
        autoscaling.knative.dev/min-scale: 2
        zipline.internal/mode: maybe
        zipline.internal/colour: red
    spec:
      containerConcurrency: 1001
      timeoutSeconds: "5"
      volumes: []
      containers:
        - command: [serve, 8080]
          lifecycel: {}
          env:
            - {name: PORT, value: "1"}
            - {name: A, value: true}
          readinessProbe: {exec: {command: [x]}}
"#;
    let expected = "\
app.yaml:4: metadata.name: \"Recog\" is not a DNS label: use 1 to 63 of a-z, 0-9 and -, without - at either end
app.yaml:5: metadata.annotations: not supported here: write annotations under spec.template.metadata
app.yaml:7: spec.traffic[0].revisionName: not supported here: only the latest revision runs here; remove it
app.yaml:11: spec.template.metadata.annotations[\"autoscaling.knative.dev/target\"]: not supported here: this version does not scale by load; known: min-scale, max-scale, initial-scale
app.yaml:12: spec.template.metadata.annotations[\"autoscaling.knative.dev/min-scale\"]: must be text, not a number: put it in quotes, \"2\"
app.yaml:13: spec.template.metadata.annotations[\"zipline.internal/mode\"]: \"maybe\" is not one of off, receive, on
app.yaml:14: spec.template.metadata.annotations[\"zipline.internal/colour\"]: unknown annotation; known here: zipline.internal/{mode,threshold,budget}
app.yaml:16: spec.template.spec.containerConcurrency: must be a whole number from 0 to 1000, not 1001
app.yaml:17: spec.template.spec.timeoutSeconds: must be a whole number from 0 to 600, not text
app.yaml:18: spec.template.spec.volumes: not supported here: a process sees the host's files; remove it
app.yaml:20: spec.template.spec.containers[0].command[1]: must be text, not a number: put it in quotes, \"8080\"
app.yaml:21: spec.template.spec.containers[0].lifecycel: unknown field; known here: name, image, command, args, env, workingDir, ports, readinessProbe
app.yaml:23: spec.template.spec.containers[0].env[0].name: PORT is set by the engine: remove it
app.yaml:24: spec.template.spec.containers[0].env[1].value: must be text, not a truth value: put it in quotes, \"true\"
app.yaml:25: spec.template.spec.containers[0].readinessProbe.exec: not supported here: Knative cannot run it in the function either; use httpGet or tcpSocket";
    let found = complaints(text);
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

#[test]
fn single_complaints() {
    let run = "command: [serve]";
    let scale = r#"{autoscaling.knative.dev/min-scale: "3", autoscaling.knative.dev/max-scale: "2"}"#;
    let cases = [
        (with("{name: a}", scale, "timeoutSeconds: 0", run), "is 2, less than min-scale, which is 3"),
        (
            with("{name: a}", "{zipline.internal/threshold: 16B}", "timeoutSeconds: 5", run),
            "below the least threshold",
        ),
        (
            with("{name: a}", "{zipline.internal/budget: 64MB}", "timeoutSeconds: 5", run),
            "is not an amount of bytes",
        ),
        (with("{name: a}", "{example.com/x: y}", "timeoutSeconds: 5", run), "unknown annotation"),
        (
            with("{name: a, namespace: B}", "{}", "timeoutSeconds: 5", run),
            "metadata.namespace: \"B\" is not a DNS label",
        ),
        (with("{}", "{}", "timeoutSeconds: 5", run), "metadata.name: missing: name the service"),
        (with("{name: a}", "{}", "timeoutSecond: 5", run), "timeoutSecond: unknown field"),
        (with("{name: a}", "{}", "timeoutSeconds: -1", run), "must be a whole number from 0 to 600, not -1"),
        (with("{name: a}", "{}", "timeoutSeconds: 5", "command: []"), "is empty: name the program to run"),
        (with("{name: a}", "{}", "timeoutSeconds: 5", "command: serve"), "must be a list, not text"),
        (
            with("{name: a}", "{}", "timeoutSeconds: 5", "command: [a]\n          workingDir: none"),
            "/none: No such file",
        ),
        (
            with("{name: a}", "{}", "timeoutSeconds: 5", "command: [a]\n          ports: [{name: grpc}]"),
            "must be http1 or h2c",
        ),
        (
            with(
                "{name: a}",
                "{}",
                "timeoutSeconds: 5",
                "command: [a]\n          readinessProbe: {tcpSocket: {port: 9}}",
            ),
            "9 is not the function's port",
        ),
        (
            with(
                "{name: a}",
                "{}",
                "timeoutSeconds: 5",
                "command: [a]\n          readinessProbe: {failureThreshold: 3}",
            ),
            "needs periodSeconds",
        ),
        (
            with("{name: a}", "{}", "timeoutSeconds: 5", "command: [a]\n          command: [b]"),
            "`command` is given twice, first in line 12",
        ),
        ("apiVersion: v1\nkind: ConfigMap\n".into(), "app.yaml:2: kind: \"ConfigMap\" cannot be run here"),
        ("apiVersion: v1\nkind: Service\n".into(), "app.yaml:1: apiVersion: \"v1\" cannot be run here"),
        ("kind: Service\n".into(), "apiVersion: missing: a manifest starts with"),
        ("a: [1\nb: 2\n".into(), "not valid YAML"),
        ("- 1\n".into(), "app.yaml:1: must be a mapping, not a list"),
        ("a: !!str b\n".into(), "YAML tags are not used"),
        (String::new(), "holds no document"),
        (format!("a: {}", "[".repeat(40)), "nested more than 32 levels deep"),
    ];
    for (text, expected) in cases {
        let found = complaints(&text);
        assert!(found.contains(expected), "{found}\n does not contain\n{expected}");
    }
}

#[test]
fn containers_are_exactly_one() {
    let text = with("{name: a}", "{}", "timeoutSeconds: 5", "command: [a]\n        - command: [b]");
    assert!(complaints(&text).contains("has 2 containers: an instance is exactly one process"));
}

#[test]
fn names_are_unique_over_all_documents() {
    let one = with("{name: a}", "{}", "timeoutSeconds: 5", "command: [a]");
    let found = complaints(&format!("{one}---\n{one}"));
    assert_eq!(
        found,
        "app.yaml:14: metadata.name: a.default is declared twice, first in app.yaml:1: rename or remove one"
    );
}

#[test]
fn aliases_work_and_cannot_explode() {
    let text = with(
        "&m {name: a, labels: &l {x: y}}",
        "{}",
        "timeoutSeconds: 5",
        "command: &c [a]\n          args: *c",
    );
    assert_eq!(read(&text).unwrap()[0].container.args, ["a"]);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = level - 1;
        bomb.push_str(&format!(
            "a{level}: &a{level} [*a{before}, *a{before}, *a{before}, *a{before}, *a{before}, *a{before}]\n"
        ));
    }
    assert!(complaints(&bomb).contains("more than 50000 values"));
}

#[test]
fn files_are_read_relative_to_their_folder() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("app")).unwrap();
    let file = folder.path().join("app.yaml");
    let text = with("{name: a}", "{}", "timeoutSeconds: 5", "command: [a]\n          workingDir: app");
    std::fs::write(&file, text).unwrap();
    let services = read_files(&[&file]).unwrap();
    let expected = std::fs::canonicalize(folder.path().join("app")).unwrap();
    assert_eq!(services[0].container.working_dir, expected);

    let missing = folder.path().join("none.yaml");
    let found = read_files(&[&missing, &folder.path().to_path_buf()]).unwrap_err().to_string();
    assert!(found.contains("none.yaml: cannot be read: No such file"), "{found}");
    assert!(found.contains("is a folder"), "{found}");
}
