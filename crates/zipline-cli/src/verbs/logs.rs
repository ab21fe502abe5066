//! `zipline logs`

use clap::Args;
use http::Method;
use zipline_engine::{LogLine, LogStream};

use crate::control::{Control, Lines};
use crate::environment::Environment;
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::place::Place;
use crate::unix_http::empty;

/// `logs`
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// A function, as SERVICE or SERVICE.NAMESPACE; none: all, and guests
    #[arg(value_name = "SERVICE", value_parser = service)]
    service: Option<String>,
    /// Go on with what is written from now on
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Names hold nothing that means something in a URL; the engine looks closer.
fn service(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if !text.is_empty() && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("not a function's name".into())
    }
}

pub(crate) async fn run(args: LogsArgs, place: Place, environment: Environment) -> Outcome {
    let mut control = Control::connect(&place, &environment).await?;
    let path = format!("/v1/logs?service={}&follow={}", args.service.unwrap_or_default(), args.follow);
    let answer = control.send(Method::GET, &path, empty()).await?;
    let mut lines = Lines::new(answer);
    while let Some(line) = lines.next().await.map_err(|error| control.broken(error))? {
        if args.json {
            output::data([&line[..], b"\n"].concat())?;
        } else {
            output::data(show(&serde_json::from_slice(&line).map_err(Failure::failed)?))?;
        }
    }
    Ok(0)
}

fn show(line: &LogLine) -> String {
    let stream = match line.stream {
        LogStream::Stdout => "out",
        LogStream::Stderr => "err",
        LogStream::QueueProxy => "queue-proxy",
        LogStream::Engine => "engine",
    };
    format!("{} {stream} | {}\n", line.instance, line.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_who_wrote_it() {
        let line = LogLine {
            sequence: 1,
            unix_ms: 0,
            function: "a.default".into(),
            instance: "a-00001-1".into(),
            stream: LogStream::QueueProxy,
            line: "listening".into(),
        };
        assert_eq!(show(&line), "a-00001-1 queue-proxy | listening\n");
    }

    #[test]
    fn names_are_plain() {
        assert_eq!(service("recog.default").unwrap(), "recog.default");
        for bad in ["", "a b", "a&follow=true", "A"] {
            assert!(service(bad).is_err(), "{bad}");
        }
    }
}
