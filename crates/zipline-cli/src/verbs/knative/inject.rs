//! `zipline knative inject`: adds the proxy's variables to the Services of a manifest.
//!
//! It inserts lines and changes none, so comments, order and style stay. What is there already is left alone.

mod document;
mod insert;

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use zipline_protocol::Mode;

use crate::exit::{Failure, Outcome, message};
use crate::output::{self, say};

/// Longest manifest.
const SIZE_MAX: u64 = 16 << 20;

/// `knative inject`
#[derive(Debug, Args)]
pub(crate) struct InjectArgs {
    /// Manifest, or `-` for standard input
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Mode of these Services; the lowest of cluster, namespace and Service holds
    #[arg(long)]
    mode: Option<Mode>,
    /// Keep the data port out of this mesh
    #[arg(long, value_enum)]
    mesh: Option<Mesh>,
    /// Further destinations that are not for the proxy, separated by commas
    #[arg(long, value_name = "HOSTS")]
    no_proxy: Option<String>,
}

/// Meshes whose sidecars would take the data port's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Mesh {
    /// Istio
    Istio,
    /// Linkerd
    Linkerd,
}

pub(crate) fn run(args: &InjectArgs) -> Outcome {
    let text = read(args)?;
    let injected = insert::into(&text, &variables(args), &annotations(args))
        .map_err(|error| Failure::usage(message(format!("{}: {error}", args.file.display()))))?;
    for note in &injected.notes {
        say(format!("{}: {note}", args.file.display()));
    }
    output::data(injected.text)?;
    Ok(0)
}

fn read(args: &InjectArgs) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if args.file.as_os_str() == "-" {
        std::io::stdin().lock().take(SIZE_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(&args.file).and_then(|file| file.take(SIZE_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| {
        Failure::usage(anyhow::Error::new(error).context(format!("cannot read {}", args.file.display())))
    })?;
    Ok(text)
}

/// What leads a function's requests to its queue-proxy. `$(…)` is filled in by the kubelet.
fn variables(args: &InjectArgs) -> Vec<(&'static str, String)> {
    let proxy = "http://zipline:pod@127.0.0.1:8030";
    let mut direct = "localhost,127.0.0.1,::1,169.254.0.0/16,169.254.169.254,metadata.google.internal,\
                      kubernetes.default.svc,kubernetes.default.svc.cluster.local,$(KUBERNETES_SERVICE_HOST)"
        .to_owned();
    if let Some(more) = &args.no_proxy {
        direct.push(',');
        direct.push_str(more);
    }
    vec![
        ("http_proxy", proxy.to_owned()),
        ("HTTP_PROXY", proxy.to_owned()),
        ("no_proxy", direct.clone()),
        ("NO_PROXY", direct),
        ("ZIPLINE_API", "http://127.0.0.1:8030".to_owned()),
        ("ZIPLINE_SOCKET", "@zipline".to_owned()),
        ("ZIPLINE_TOKEN", "pod".to_owned()),
    ]
}

fn annotations(args: &InjectArgs) -> Vec<(&'static str, String)> {
    let mut annotations = vec![("features.knative.dev/queueproxy-podinfo", "enabled".to_owned())];
    if let Some(mode) = args.mode {
        annotations.push(("zipline.internal/mode", mode.as_str().to_owned()));
    }
    let mesh: &[&str] = match args.mesh {
        None => &[],
        Some(Mesh::Istio) => {
            &["traffic.sidecar.istio.io/excludeInboundPorts", "traffic.sidecar.istio.io/excludeOutboundPorts"]
        }
        Some(Mesh::Linkerd) => {
            &["config.linkerd.io/skip-inbound-ports", "config.linkerd.io/skip-outbound-ports"]
        }
    };
    annotations.extend(mesh.iter().map(|name| (*name, "8031".to_owned())));
    annotations
}
