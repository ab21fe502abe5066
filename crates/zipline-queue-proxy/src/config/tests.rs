use super::*;

const TOKEN: &str = "0123456789abcdefTOKEN";

fn parse(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let base = [("USER_PORT", "9000"), ("SERVING_SERVICE", "recog"), ("ZIPLINE_TOKEN", TOKEN)];
    let all = base.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::parse(all.collect(), Budgets::default())
}

#[test]
fn defaults_are_those_of_the_documents() {
    let config = parse(&[]).unwrap();
    assert_eq!(config.function.to_string(), "recog.default");
    assert_eq!(config.function_address(), Some("127.0.0.1:9000".parse().unwrap()));
    assert_eq!(config.threshold_bytes, zipline_protocol::limits::THRESHOLD_DEFAULT);
    assert_eq!(config.request_timeout, Duration::from_secs(300));
    assert_eq!((config.container_concurrency, config.mode), (0, Mode::On));
    assert_eq!(config.listen_ip, IpAddr::from(Ipv4Addr::LOCALHOST));
    assert!(!config.data_tls);
    assert_eq!(config.keys, KeySource::None);
    assert_eq!(config.ports, Ports::default());
}

#[test]
fn sizes_take_binary_units() {
    let config = parse(&[("ZIPLINE_BUDGET_BYTES", "64MiB"), ("ZIPLINE_INFLIGHT_BYTES", "1048576")]).unwrap();
    assert_eq!((config.budget_bytes, config.in_flight_bytes), (64 << 20, 1 << 20));
}

#[test]
fn without_a_setting_what_may_be_held_may_be_in_flight() {
    for (held, in_flight) in [("1MiB", 256 << 20), ("1GiB", 1 << 30)] {
        let config = parse(&[("ZIPLINE_BUDGET_BYTES", held)]).unwrap();
        assert_eq!(config.in_flight_bytes, in_flight, "{held} held");
    }
    let config = parse(&[]).unwrap();
    assert_eq!((config.budget_bytes, config.in_flight_bytes), (256 << 20, 256 << 20));
}

#[test]
fn tls_on_the_data_port_is_on_or_off() {
    for (word, on) in [("on", true), ("off", false), ("", false)] {
        assert_eq!(parse(&[("ZIPLINE_DATA_TLS", word)]).unwrap().data_tls, on, "{word:?}");
    }
    let error = parse(&[("ZIPLINE_DATA_TLS", "true")]).unwrap_err();
    assert_eq!(error.problems, ["ZIPLINE_DATA_TLS: \"true\" is neither on nor off"]);
}

#[test]
fn an_advertised_address_may_name_a_port() {
    let config = parse(&[("ZIPLINE_ADVERTISE", "10.0.0.7:8031")]).unwrap();
    assert_eq!(config.advertise, Some(Advertise { ip: "10.0.0.7".parse().unwrap(), port: Some(8031) }));
    let config = parse(&[("ZIPLINE_ADVERTISE", "fd00::7"), ("ZIPLINE_LISTEN_IP", "::")]).unwrap();
    assert_eq!(config.advertise, Some(Advertise { ip: "fd00::7".parse().unwrap(), port: None }));
}

#[test]
fn every_problem_is_reported_at_once_by_name() {
    let error = parse(&[
        ("ZIPLINE_INBOUND_PORT", "70000"),
        ("SERVING_SERVICE", "No.Label"),
        ("ZIPLINE_TOKEN", "short"),
        ("ZIPLINE_MODE", "maybe"),
        ("ZIPLINE_THRESHOLD_BYTES", "1023"),
        ("ZIPLINE_BUDGET_BYTES", "99999999999999GiB"),
        ("ZIPLINE_INFLIGHT_BYTES", "-5"),
        ("ZIPLINE_DIGEST_MAX_BYTES", "1 MiB"),
        ("ZIPLINE_GATEWAY", "localhost"),
        ("ZIPLINE_LISTEN_IP", "0.0.0.0"),
        ("ZIPLINE_CONTROL", "stdout"),
        ("ZIPLINE_GUEST", "yes"),
        ("ZIPLINE_API_PORT", "+80"),
        ("ZIPLINE_TRESHOLD", "1"),
        ("CONTAINER_CONCURRENCY", "many"),
        ("SERVING_READINESS_PROBE", "{\"httpGet\": 1}"),
        ("REVISION_TIMEOUT_SECONDS", "0"),
    ])
    .unwrap_err();
    for name in [
        "ZIPLINE_INBOUND_PORT",
        "SERVING_READINESS_PROBE",
        "SERVING_SERVICE",
        "ZIPLINE_TOKEN",
        "ZIPLINE_MODE",
        "ZIPLINE_THRESHOLD_BYTES",
        "ZIPLINE_BUDGET_BYTES",
        "ZIPLINE_INFLIGHT_BYTES",
        "ZIPLINE_DIGEST_MAX_BYTES",
        "ZIPLINE_GATEWAY",
        "ZIPLINE_ADVERTISE",
        "ZIPLINE_CONTROL",
        "ZIPLINE_GUEST",
        "ZIPLINE_API_PORT",
        "ZIPLINE_TRESHOLD: no such setting",
        "CONTAINER_CONCURRENCY",
        "REVISION_TIMEOUT_SECONDS",
    ] {
        assert!(error.problems.iter().any(|problem| problem.starts_with(name)), "{name}: {error}");
    }
    assert_eq!(error.problems.len(), 17, "{error}");
}

#[test]
fn a_guest_has_no_function() {
    let guest = [("ZIPLINE_GUEST", "1"), ("USER_PORT", ""), ("SERVING_SERVICE", "")];
    let config = parse(&guest).unwrap();
    assert!(config.is_guest());
    assert_eq!(config.function.to_string(), "guest.default");
    assert!(parse(&[("ZIPLINE_GUEST", "1")]).unwrap_err().to_string().contains("USER_PORT"));
    assert!(parse(&[("USER_PORT", "")]).unwrap_err().to_string().contains("USER_PORT"));
}

#[test]
fn the_token_is_compared_and_never_printed() {
    let config = parse(&[]).unwrap();
    assert!(config.token.matches(TOKEN.as_bytes()));
    assert!(!config.token.matches(&TOKEN.as_bytes()[1..]));
    assert!(!config.token.matches(b""));
    assert!(!format!("{config:?}").contains(TOKEN));
}

#[test]
fn keys_come_from_one_place() {
    assert_eq!(parse(&[("ZIPLINE_CONTROL", "stdin")]).unwrap().keys, KeySource::Control);
    assert_eq!(parse(&[("ZIPLINE_KEYRING_FILE", "/k")]).unwrap().keys, KeySource::File("/k".into()));
    assert!(parse(&[("ZIPLINE_CONTROL", "stdin"), ("ZIPLINE_KEYRING_FILE", "/k")]).is_err());
}
