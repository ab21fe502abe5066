use super::*;
use proptest::prelude::*;
use std::time::Duration;

/// `zap-logger-config` as the ConfigMap of v0.50.0 shows it.
const EXAMPLE: &str = r#"{
  "level": "info",
  "development": false,
  "outputPaths": ["stdout"],
  "errorOutputPaths": ["stderr"],
  "encoding": "json",
  "encoderConfig": {
    "timeKey": "ts",
    "levelKey": "severity",
    "nameKey": "logger",
    "callerKey": "caller",
    "messageKey": "msg",
    "stacktraceKey": "stacktrace",
    "lineEnding": "",
    "levelEncoder": "",
    "timeEncoder": "iso8601",
    "durationEncoder": "",
    "callerEncoder": ""
  }
}"#;

#[test]
fn nothing_given_is_json_on_standard_error() {
    let logging = Logging::parse("", "");
    assert_eq!(logging, Logging::default());
    assert_eq!(
        (logging.level, logging.encoding, &logging.outputs[..]),
        (Level::Info, Encoding::Json, &[Output::Stderr][..])
    );
    assert_eq!(logging.level.word(logging.level_words), "INFO");
    assert_eq!(logging.logger, "queueproxy");
}

#[test]
fn the_example_is_read() {
    let logging = Logging::parse(EXAMPLE, "");
    assert_eq!(logging.notes, [""; 0]);
    assert_eq!(logging.outputs, [Output::Stdout]);
    assert_eq!((logging.keys.time.as_str(), logging.keys.message.as_str()), ("ts", "msg"));
    assert_eq!((logging.time, logging.level_words), (TimeEncoding::Iso8601, LevelEncoding::Lowercase));
}

#[test]
fn the_level_overrides() {
    for (text, level) in [
        ("debug", Level::Debug),
        ("WARN", Level::Warn),
        ("warning", Level::Warn),
        ("Error", Level::Error),
        ("dpanic", Level::DPanic),
        ("panic", Level::Panic),
        ("fatal", Level::Fatal),
        ("", Level::Info),
    ] {
        assert_eq!(Logging::parse(EXAMPLE, text).level, level, "{text}");
    }
    assert_eq!(Logging::parse(r#"{"level":"ERROR"}"#, "").level, Level::Error);
    // A level that is none changes nothing, not even the configuration's.
    let logging = Logging::parse(r#"{"level":"error"}"#, "loud");
    assert_eq!((logging.level, logging.logger), (Level::Error, LOGGER));
    assert!(logging.notes[0].contains("\"loud\" is not a level"), "{:?}", logging.notes);
}

#[test]
fn what_cannot_be_used_falls_back_with_a_note() {
    for config in [
        "{",
        "[]",
        r#"{"level":"loud"}"#,
        r#"{"encoding":"xml"}"#,
        r#"{"outputPaths":"stdout"}"#,
        r#"{"level":3}"#,
    ] {
        let logging = Logging::parse(config, "debug");
        assert_eq!(logging.logger, FALLBACK_LOGGER, "{config}");
        assert_eq!((logging.level, &logging.outputs[..]), (Level::Debug, &[Output::Stderr][..]), "{config}");
        assert!(logging.notes[0].starts_with("Failed to parse logging config"), "{config}");
    }
}

#[test]
fn the_rest_is_honoured_or_said() {
    let logging = Logging::parse(
        r#"{"outputPaths":["stdout","/var/log/qp.log"],"initialFields":{"b":1,"a":"x"},"encoding":"console",
            "encoderConfig":{"timeEncoder":"nanos","levelEncoder":"capital","nameKey":""},"sampling":null}"#,
        "",
    );
    assert_eq!(logging.outputs, [Output::Stdout, Output::Stderr]);
    assert!(logging.notes[0].contains("/var/log/qp.log"), "{:?}", logging.notes);
    assert_eq!(logging.initial_fields, [("a".into(), "\"x\"".into()), ("b".into(), "1".to_owned())]);
    assert_eq!((logging.encoding, logging.time), (Encoding::Console, TimeEncoding::Nanos));
    assert_eq!(logging.level.word(logging.level_words), "INFO");
    assert_eq!(logging.keys.name, "");
}

#[test]
fn lines_below_the_level_are_not_written() {
    let logging = Logging::parse("", "warn");
    let entry = |level| Entry { level, since_epoch: Duration::ZERO, message: "m", fields: &[] };
    let mut out = Vec::new();
    logging.write(&entry(Level::Info), &[], &mut out);
    assert_eq!(out, b"");
    logging.write(&entry(Level::Warn), &[], &mut out);
    assert_eq!(
        str::from_utf8(&out).unwrap(),
        "{\"severity\":\"WARNING\",\"timestamp\":\"1970-01-01T00:00:00Z\",\"logger\":\"queueproxy\",\"message\":\"m\"}\n"
    );
}

proptest! {
    #[test]
    fn every_line_is_json(message in "\\PC{0,16}|[\\x00-\\x7f]{0,16}", seconds in 0_u64..=253_402_300_799) {
        let entry = Entry {
            level: Level::Error,
            since_epoch: Duration::from_secs(seconds),
            message: &message,
            fields: &[(&message, FieldValue::Text(&message))],
        };
        let mut out = Vec::new();
        Logging::default().write(&entry, &[], &mut out);
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        prop_assert_eq!(line["message"].as_str(), Some(message.as_str()));
    }

    #[test]
    fn nothing_panics(config in "[\\[\\]{}\":,a-z0-9.]{0,64}|\\PC{0,64}", level in "\\PC{0,8}") {
        let _ = Logging::parse(&config, &level);
    }
}
