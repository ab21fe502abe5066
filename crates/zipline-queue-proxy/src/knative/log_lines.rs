//! Log lines in the form that Knative configures, so that what collects logs of pods finds the fields it knows.

use std::fmt;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use zipline_knative::logging::{Entry, FieldValue, KEY_FIELD, Level, Logging, Output, POD_FIELD};
use zipline_runtime::logs;

/// Sends this process' events out as `logging` says, every line with the revision's name and the pod's.
pub(super) fn init(logging: Logging, revision: String, pod: String) {
    let notes = logging.notes.clone();
    let lines = Lines { logging, revision, pod };
    // A subscriber that is there already is a test's, which wants the events itself.
    if tracing_subscriber::registry().with(lines).try_init().is_ok() {
        logs::log_panics();
    }
    for note in notes {
        tracing::warn!("{note}");
    }
}

struct Lines {
    logging: Logging,
    revision: String,
    pod: String,
}

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let level = level(*metadata.level());
        // What libraries tell in detail is for those who work on them.
        let ours = metadata.target().starts_with("zipline");
        metadata.is_event() && level >= self.logging.level && (ours || level >= Level::Warn)
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut found = Found::default();
        event.record(&mut found);
        let fields: Vec<_> = found.fields.iter().map(|(name, value)| (*name, value.as_field())).collect();
        let entry = Entry {
            level: level(*event.metadata().level()),
            since_epoch: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
            message: &found.message,
            fields: &fields,
        };
        let context =
            [(KEY_FIELD, FieldValue::Text(&self.revision)), (POD_FIELD, FieldValue::Text(&self.pod))];
        let mut line = Vec::new();
        self.logging.write(&entry, &context, &mut line);
        for output in &self.logging.outputs {
            // Nobody is left to tell if it is gone.
            let _ = match output {
                Output::Stdout => std::io::stdout().lock().write_all(&line),
                Output::Stderr => std::io::stderr().lock().write_all(&line),
            };
        }
    }
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG | tracing::Level::TRACE => Level::Debug,
    }
}

/// The parts of an event.
#[derive(Debug, Default)]
struct Found {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

impl Value {
    fn as_field(&self) -> FieldValue<'_> {
        match self {
            Self::Text(text) => FieldValue::Text(text),
            Self::Int(number) => FieldValue::Int(*number),
            Self::Float(number) => FieldValue::Float(*number),
            Self::Bool(truth) => FieldValue::Bool(*truth),
        }
    }
}

impl Found {
    fn add(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(text)) => self.message = text,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Found {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Text(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Int(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        let value = i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Int);
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Bool(value));
    }
}
