use super::*;
use proptest::prelude::*;

fn parse(json: &str) -> Result<Probe, String> {
    Probe::parse(json, 8080).map_err(|error| error.to_string())
}

#[test]
fn what_the_controller_writes_is_read() {
    let probe = parse(r#"{"tcpSocket":{"port":8080,"host":"127.0.0.1"},"successThreshold":1}"#).unwrap();
    assert_eq!(probe, Probe::connects(8080));
    assert!(probe.is_aggressive());

    let probe = parse(
        r#"{"httpGet":{"path":"/ok?a=b","port":"9000","host":"127.0.0.1","scheme":"HTTP",
            "httpHeaders":[{"name":"X-A","value":"b"},{"name":"Host","value":"other"}]},
            "initialDelaySeconds":3,"periodSeconds":5,"timeoutSeconds":2,"failureThreshold":4,"successThreshold":2,
            "terminationGracePeriodSeconds":9,"inventedLater":{}}"#,
    )
    .unwrap();
    let Check::Http { scheme, host, port, path, headers } = &probe.check else { panic!("{probe:?}") };
    assert_eq!(
        (scheme, host.as_str(), port, path.to_string()),
        (&Scheme::Http, "127.0.0.1", &9000, "/ok?a=b".into())
    );
    assert_eq!(headers, &[(HeaderName::from_static("x-a"), HeaderValue::from_static("b"))]);
    assert_eq!((probe.period, probe.timeout), (Some(Duration::from_secs(5)), Duration::from_secs(2)));
    assert_eq!((probe.success_threshold, probe.failure_threshold), (2, 4));
    assert_eq!(probe.initial_delay, Duration::from_secs(3));

    let probe = parse(r#"{"grpc":{"port":50051,"service":"a.B"},"periodSeconds":1}"#).unwrap();
    assert_eq!(probe.check, Check::Grpc { port: 50051, service: "a.B".into() });
    assert_eq!(
        parse(r#"{"grpc":{"port":1,"service":null}}"#).unwrap().check,
        Check::Grpc { port: 1, service: "".into() }
    );

    let https = parse(r#"{"httpGet":{"scheme":"HTTPS","port":8443}}"#).unwrap();
    assert!(matches!(https.check, Check::Http { scheme: Scheme::Https, port: 8443, .. }));
}

#[test]
fn gaps_are_filled() {
    for (json, path) in [
        (r#"{"httpGet":{}}"#, "/"),
        (r#"{"httpGet":{"path":""}}"#, "/"),
        (r#"{"httpGet":{"path":"healthz"}}"#, "/healthz"),
        (r#"{"httpGet":{"path":"/healthz#top"}}"#, "/healthz"),
        (r#"{"httpGet":{"path":"?a=b"}}"#, "/?a=b"),
        (r#"{"httpGet":{"PATH":"/upper"}}"#, "/upper"),
    ] {
        let probe = parse(json).unwrap();
        let Check::Http { host, port, path: found, .. } = &probe.check else { panic!("{probe:?}") };
        assert_eq!((host.as_str(), *port, found.to_string().as_str()), ("127.0.0.1", 8080, path), "{json}");
        assert_eq!((probe.timeout, probe.failure_threshold), (Duration::from_secs(1), 3));
    }
    assert_eq!(parse("{}").unwrap().check, Probe::connects(8080).check);
    assert_eq!(parse(r#"{"tcpSocket":{"port":""}}"#).unwrap().check, Probe::connects(8080).check);
    assert_eq!(parse(r#"{"periodSeconds":-1,"timeoutSeconds":-5}"#).unwrap(), Probe::connects(8080));
}

#[test]
fn several_are_read_in_order() {
    let json = r#"[{"tcpSocket":{"port":1}},{"httpGet":{"port":2}}]"#;
    assert_eq!(Probe::parse_all(json, true, 80).unwrap().len(), 2);
    assert_eq!(Probe::parse_all("", true, 80).unwrap(), []);
    assert_eq!(Probe::parse_all("", false, 80).unwrap(), []);
    assert_eq!(Probe::parse_all("[]", true, 80).unwrap(), []);
    assert!(Probe::parse_all(json, false, 80).is_err());
    assert!(Probe::parse_all("{}", true, 80).is_err());
    let error = Probe::parse_all(r#"[{},{"httpGet":{"port":"x"}}]"#, true, 80).unwrap_err().to_string();
    assert!(error.starts_with("[1].httpGet.port: "), "{error}");
}

#[test]
fn what_is_not_run_is_refused_by_name() {
    for (json, part) in [
        (r#"{"exec":{"command":["true"]}}"#, "exec: exec probes are not supported"),
        (r#"{"httpGet":{"scheme":"FTP"}}"#, "httpGet.scheme: \"FTP\""),
        (r#"{"tcpSocket":{"port":"http"}}"#, "tcpSocket.port: port \"http\" is a name"),
        (r#"{"tcpSocket":{"port":65536}}"#, "tcpSocket.port: is not a port"),
        (r#"{"tcpSocket":{"port":-1}}"#, "tcpSocket.port: is not a port"),
        (r#"{"tcpSocket":{"port":1.5}}"#, "tcpSocket.port: is neither"),
        (r#"{"httpGet":{},"tcpSocket":{}}"#, "httpGet and tcpSocket exclude each other"),
        (r#"{"httpGet":{"host":"a b"}}"#, "httpGet.host: "),
        (r#"{"httpGet":{"path":"/a b"}}"#, "httpGet.path: "),
        (r#"{"httpGet":{"httpHeaders":[{"name":"a b"}]}}"#, "httpGet.httpHeaders[0].name: "),
        (r#"{"httpGet":{"httpHeaders":[{"name":"a","value":"\n"}]}}"#, "httpGet.httpHeaders[0].value: "),
        (r#"{"httpGet":{"httpHeaders":{}}}"#, "httpGet.httpHeaders: an object where an array"),
        (r#"{"periodSeconds":"1"}"#, "periodSeconds: a string where a whole number"),
        (r#"{"periodSeconds":3000000000}"#, "periodSeconds: 3000000000 does not fit"),
        (r#"{"httpGet":1}"#, "httpGet: a whole number where an object"),
        ("null", "is null"),
        ("", "is not JSON"),
        ("{", "is not JSON"),
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.contains(part), "{json}: {error}");
    }
}

#[test]
fn strictly_unknown_fields_are_refused() {
    for (json, part) in [
        (r#"{"httpGet":{"pot":1}}"#, "httpGet.pot: unknown field `pot`"),
        (r#"{"perod":1}"#, "perod: unknown field"),
        (r#"{"httpGet":{"httpHeaders":[{"nam":"x"}]}}"#, "httpGet.httpHeaders[0].nam: unknown field"),
    ] {
        let error = Probe::parse_strict(json, 1).unwrap_err().to_string();
        assert!(error.contains(part), "{json}: {error}");
        assert!(!parse(json).is_err_and(|error| error.contains("unknown")), "{json}");
    }
}

proptest! {
    #[test]
    fn nothing_panics(text in "\\PC{0,64}", path in "\\PC{0,16}", port in "\\PC{0,6}", number: i64) {
        let _ = parse(&text);
        let json = serde_json::json!({"httpGet": {"path": path, "port": port, "host": path}, "periodSeconds": number});
        let _ = parse(&json.to_string());
        let _ = Probe::parse_all(&text, true, 1);
    }
}
