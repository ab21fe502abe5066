use super::*;

const VARIABLES: [(&str, &str); 2] = [("http_proxy", "http://p"), ("ZIPLINE_TOKEN", "pod")];
const ANNOTATIONS: [(&str, &str); 1] = [("zipline.internal/mode", "on")];

fn inject(text: &str) -> Injected {
    let own = |pairs: &[(&'static str, &str)]| -> Vec<(&'static str, String)> {
        pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
    };
    into(text, &own(&VARIABLES), &own(&ANNOTATIONS)).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn comments_order_and_other_documents_stay() {
    let text = "\
# A shop.
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
---
apiVersion: serving.knative.dev/v1
kind: Service   # of two
metadata:
  name: cart
spec:
  template:
    # Where it runs.
    spec:
      timeoutSeconds: 30
      containers:
      - image: cart:1 # pinned
        args:
        - --verbose

        # The end.
  traffic:
  - latestRevision: true
    percent: 100
";
    let expected = "\
# A shop.
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
---
apiVersion: serving.knative.dev/v1
kind: Service   # of two
metadata:
  name: cart
spec:
  template:
    # Where it runs.
    metadata:
      annotations:
        zipline.internal/mode: \"on\"
    spec:
      timeoutSeconds: 30
      containers:
      - image: cart:1 # pinned
        args:
        - --verbose
        env:
          - name: http_proxy
            value: \"http://p\"
          - name: ZIPLINE_TOKEN
            value: \"pod\"

        # The end.
  traffic:
  - latestRevision: true
    percent: 100
";
    let injected = inject(text);
    assert_eq!(injected.text, expected);
    assert!(injected.notes.is_empty());
    assert_eq!(inject(expected).text, expected, "a second time nothing changes");
}

#[test]
fn what_is_there_is_completed() {
    let text = "\
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: a}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/min-scale: \"1\"
      name: a-1
    spec:
      containers:
        - name: first
          env:
          - name: http_proxy
            value: http://theirs
          - {name: A, value: b}
          image: a:1
        - env:
          image: |
            b:1
";
    let injected = inject(text);
    let expected = "\
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: a}
spec:
  template:
    metadata:
      annotations:
        zipline.internal/mode: \"on\"
        autoscaling.knative.dev/min-scale: \"1\"
      name: a-1
    spec:
      containers:
        - name: first
          env:
          - name: http_proxy
            value: http://theirs
          - {name: A, value: b}
          - name: ZIPLINE_TOKEN
            value: \"pod\"
          image: a:1
        - env:
            - name: http_proxy
              value: \"http://p\"
            - name: ZIPLINE_TOKEN
              value: \"pod\"
          image: |
            b:1
";
    assert_eq!(injected.text, expected);
    assert_eq!(injected.notes, ["line 14: http_proxy has another value and was left alone"]);
    assert_eq!(inject(expected).text, expected);
}

#[test]
fn lists_lines_without_end_and_other_line_ends() {
    let text = "apiVersion: v1\r\nkind: List\r\nitems:\r\n- apiVersion: serving.knative.dev/v1\r\n  kind: Service\r\n  spec:\r\n    \
                template:\r\n      spec:\r\n        containers:\r\n        - image: a";
    let injected = inject(text).text;
    assert!(injected.contains(
        "      metadata:\r\n        annotations:\r\n          zipline.internal/mode: \"on\"\r\n      spec:"
    ));
    assert!(injected.ends_with("        - image: a\r\n          env:\r\n            - name: http_proxy\r\n              value: \"http://p\"\r\n            - name: ZIPLINE_TOKEN\r\n              value: \"pod\"\r\n"), "{injected}");
    assert_eq!(inject(&injected).text, injected);
}

#[test]
fn what_cannot_be_done_is_named() {
    let service = "apiVersion: serving.knative.dev/v1\nkind: Service\n";
    for (text, part) in [
        (format!("{service}spec: {{template: {{spec: {{containers: [{{image: a}}]}}}}}}\n"), "line 3"),
        (
            format!("{service}spec:\n  template:\n    spec:\n      containers:\n      - {{image: a}}\n"),
            "line 7",
        ),
        (format!("{service}metadata: {{}}\n"), "no spec"),
        (format!("{service}spec: [\n"), "line"),
    ] {
        let error = into(&text, &[], &[("a", "b".to_owned())]).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let nothing = into("kind: ConfigMap\n", &[], &[]).unwrap();
    assert_eq!((nothing.text.as_str(), nothing.notes.len()), ("kind: ConfigMap\n", 1));
}
