//! Variables, logging and TLS.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::{bytes, each, section, text};
use crate::Environment;
use crate::logging::{Entry, FieldValue, KEY_FIELD, Level, LevelEncoding, Logging, POD_FIELD};
use crate::tls::{Curve, TlsVariables, TlsVersion};

#[test]
fn environments() {
    let given: BTreeMap<String, String> = serde_json::from_value(section("Given")).unwrap();
    each("Environments", |item| {
        let name = text(&item["Name"]);
        let mut variables = given.clone();
        match item["Value"].as_str() {
            Some(value) => variables.insert(name.to_owned(), value.to_owned()),
            None => variables.remove(name),
        };
        let ours = Environment::parse(variables);
        assert_eq!(ours.is_ok(), item["OK"], "{item}: {ours:?}");
        let Ok(ours) = ours else { return };
        let number = |at: usize| u64::try_from(item["Numbers"][at].as_i64().unwrap()).unwrap_or(0);
        let seconds = |limit: Option<Duration>| limit.unwrap_or_default().as_secs();
        // Without a sign, and as much as anybody can have at once.
        assert_eq!(u64::from(ours.container_concurrency), number(0).min(u32::MAX.into()), "{item}");
        assert_eq!(ours.revision_timeout.as_secs(), number(1), "{item}");
        assert_eq!(seconds(ours.response_start_timeout), number(2), "{item}");
        assert_eq!(seconds(ours.idle_timeout), number(3), "{item}");
        let flags = [ours.full_duplex, ours.http2_auto_detection, ours.multi_container_probes];
        for (at, flag) in flags.into_iter().enumerate() {
            assert_eq!(flag, item["Flags"][at], "{item}");
        }
    });
}

#[test]
fn logging() {
    each("Logging", |item| {
        let ours = Logging::parse(text(&item["Config"]), text(&item["Level"]));
        assert_eq!(ours.level.word(LevelEncoding::Lowercase), item["Result"], "{item}");
        let line = text(&item["Line"]);
        if line.is_empty() || !line.contains("text") {
            return;
        }
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line[&ours.keys.message], "text \"q\"", "{item}");
        assert_eq!(line[&ours.keys.name], ours.logger, "{item}");
        let word = Level::Error.word(ours.level_words);
        // Colours are not written here.
        let plain = text(&line[&ours.keys.level]).replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
        assert_eq!(word, plain, "{item}");
        for (name, value) in &ours.initial_fields {
            assert_eq!(line[name].to_string(), *value, "{item}");
        }
    });
}

#[test]
fn log_lines() {
    each("Lines", |item| {
        let logging = Logging::parse(text(&item["Config"]), "");
        let level = Level::parse(text(&item["Level"])).unwrap();
        let entry = Entry {
            level,
            since_epoch: Duration::from_nanos(item["Nanoseconds"].as_u64().unwrap()),
            message: text(&item["Message"]),
            fields: &[
                ("text", FieldValue::Text("a\"b")),
                ("int", FieldValue::Int(-3)),
                ("float", FieldValue::Float(1234567.5)),
                ("bool", FieldValue::Bool(true)),
                ("nan", FieldValue::Float(f64::NAN)),
            ],
        };
        let context = [(KEY_FIELD, FieldValue::Text("ns/rev")), (POD_FIELD, FieldValue::Text("pod"))];
        let mut out = Vec::new();
        logging.write(&entry, &context, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            String::from_utf8(bytes(&item["Line"])).unwrap(),
            "{item}"
        );
    });
}

#[test]
fn tls() {
    each("TLS", |item| {
        let value = |at: usize| text(&item["Values"][at]).to_owned();
        let variables = TlsVariables {
            prefix: "VECTOR_".into(),
            min_version: value(0),
            max_version: value(1),
            cipher_suites: value(2),
            curve_preferences: value(3),
        };
        let ours = variables.resolve();
        assert_eq!(ours.is_ok(), item["OK"], "{item}: {ours:?}");
        let Ok(ours) = ours else { return };
        let version = |version| if version == TlsVersion::V12 { 0x303 } else { 0x304 };
        assert_eq!(version(ours.min), item["Min"], "{item}");
        // No highest version is the highest there is.
        assert_eq!(version(ours.max), item["Max"].as_u64().filter(|max| *max > 0).unwrap_or(0x304), "{item}");
        assert_eq!(ours.cipher_suites.unwrap_or_default().len(), item["Suites"], "{item}");
        let curves = ours.curves.unwrap_or_default();
        let curves: Vec<u64> = curves
            .iter()
            .map(|curve| match curve {
                Curve::P256 => 23,
                Curve::P384 => 24,
                Curve::P521 => 25,
                Curve::X25519 => 29,
                Curve::X25519MlKem768 => 4588,
            })
            .collect();
        let go = item["Curves"].as_array().cloned().unwrap_or_default();
        assert_eq!(curves, go.iter().map(|curve| curve.as_u64().unwrap()).collect::<Vec<_>>(), "{item}");
    });
}
