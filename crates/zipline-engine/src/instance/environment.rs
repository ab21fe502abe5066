//! The environment of both processes of an instance.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::EngineConfig;
use crate::manifest::ServiceManifest;

/// What never goes through the proxy: loopback, link-local metadata services, the cluster API.
const NO_PROXY: &str =
    "localhost,127.0.0.1,::1,169.254.0.0/16,169.254.169.254,metadata.google.internal,kubernetes.default.svc";

/// A list of variables. Values of functions may be anything but text, so they stay as the system has them.
pub(crate) type Environment = Vec<(OsString, OsString)>;

/// What a queue-proxy's local API is reached with.
#[derive(Debug, Clone)]
pub(crate) struct LocalApi<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) socket: &'a Path,
    pub(crate) token: &'a str,
}

/// Variables that lead to a local API; for guests as well.
pub(crate) fn local_api(api: &LocalApi<'_>, proxy: bool, further_no_proxy: Option<&str>) -> Environment {
    let mut env = Environment::new();
    let mut set = |name: &str, value: OsString| env.push((name.into(), value));
    set("ZIPLINE_API", format!("http://{}", api.address).into());
    set("ZIPLINE_SOCKET", api.socket.into());
    set("ZIPLINE_TOKEN", api.token.into());
    if proxy {
        let url = format!("http://zipline:{}@{}", api.token, api.address);
        let direct = match further_no_proxy {
            Some(more) if !more.is_empty() => format!("{NO_PROXY},{more}"),
            _ => NO_PROXY.to_owned(),
        };
        for name in ["http_proxy", "HTTP_PROXY"] {
            set(name, url.clone().into());
        }
        for name in ["no_proxy", "NO_PROXY"] {
            set(name, direct.clone().into());
        }
    }
    env
}

/// Whether a variable of the engine's environment is kept from functions: it would lead them to another local API, or
/// around their own.
fn is_withheld(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    let lower = name.to_ascii_lowercase();
    name.starts_with("ZIPLINE_")
        || matches!(
            lower.as_str(),
            "http_proxy"
                | "https_proxy"
                | "all_proxy"
                | "no_proxy"
                | "ftp_proxy"
                | "grpc_proxy"
                | "no_grpc_proxy"
        )
        || matches!(name, "PORT" | "K_SERVICE" | "K_REVISION" | "K_CONFIGURATION")
}

/// The function's environment: inherited, then Knative's and Zipline's, then the manifest's.
pub(crate) fn of_function(
    config: &EngineConfig,
    manifest: &ServiceManifest,
    port: u16,
    api: &LocalApi<'_>,
) -> Environment {
    let own = |name: &str| {
        manifest
            .container
            .env
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    };
    let mut env: Environment =
        config.inherited_env.iter().filter(|(name, _)| !is_withheld(name)).cloned().collect();
    for (name, value) in contract(manifest, port) {
        env.push((name.into(), value.into()));
    }
    env.extend(local_api(api, config.proxy_env, own("no_proxy")));
    let mut known = contract(manifest, port);
    for (name, value) in &manifest.container.env {
        let value = expand(value, &known);
        // With the proxy on, the manifest's NO_PROXY was appended above and must not take the whole's place.
        if !(config.proxy_env && name.eq_ignore_ascii_case("no_proxy")) {
            env.push((name.into(), value.clone().into()));
        }
        known.push((name.clone(), value));
    }
    env
}

/// The function's command line: the program found before, then what the manifest says.
pub(crate) fn words(manifest: &ServiceManifest, port: u16) -> Vec<String> {
    let mut known = contract(manifest, port);
    for (name, value) in &manifest.container.env {
        let value = expand(value, &known);
        known.push((name.clone(), value));
    }
    let container = &manifest.container;
    container.command.iter().skip(1).chain(&container.args).map(|word| expand(word, &known)).collect()
}

fn contract(manifest: &ServiceManifest, port: u16) -> Vec<(String, String)> {
    let service = manifest.name.service();
    vec![
        ("PORT".into(), port.to_string()),
        ("K_SERVICE".into(), service.into()),
        ("K_CONFIGURATION".into(), service.into()),
        ("K_REVISION".into(), manifest.revision.clone()),
    ]
}

/// Kubernetes' `$(NAME)`: known names are replaced, unknown ones stay, `$$` is a dollar.
fn expand(text: &str, known: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|rest| rest.split_once(')'))
            && let Some((_, value)) = known.iter().rev().find(|(key, _)| key == name)
        {
            out.push_str(value);
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// What a queue-proxy is told about itself.
#[derive(Debug, Clone)]
pub(crate) struct QueueProxy<'a> {
    pub(crate) namespace: &'a str,
    /// None: a guest, which has no function.
    pub(crate) function: Option<(&'a ServiceManifest, u16)>,
    pub(crate) instance: &'a str,
    pub(crate) socket: &'a Path,
    /// Where it finds others, and they find it.
    pub(crate) host: &'a Path,
    /// Whether memory that was shared may be written again.
    pub(crate) reuse: bool,
    pub(crate) token: &'a str,
    pub(crate) gateway: SocketAddr,
}

/// The queue-proxy's environment; it gets nothing else.
pub(crate) fn of_queue_proxy(config: &EngineConfig, proxy: &QueueProxy<'_>) -> Environment {
    let mut env = Environment::new();
    let mut set = |name: &str, value: OsString| env.push((name.into(), value));
    let settings = proxy.function.map(|(manifest, _)| manifest.settings).unwrap_or_default();
    set("ZIPLINE_CONTROL", "stdin".into());
    set("ZIPLINE_MODE", settings.mode.unwrap_or(config.mode).as_str().into());
    set(
        "ZIPLINE_THRESHOLD_BYTES",
        settings.threshold_bytes.unwrap_or(config.threshold_bytes).to_string().into(),
    );
    let held = settings.budget_bytes.unwrap_or(config.budget_bytes);
    let in_flight = config.in_flight_bytes.unwrap_or(held.max(config.budget_bytes));
    set("ZIPLINE_BUDGET_BYTES", held.to_string().into());
    set("ZIPLINE_INFLIGHT_BYTES", in_flight.to_string().into());
    if let Some(bytes) = config.digest_max_bytes {
        set("ZIPLINE_DIGEST_MAX_BYTES", bytes.to_string().into());
    }
    set("ZIPLINE_DATA_TLS", if config.data_tls { "on" } else { "off" }.into());
    set("ZIPLINE_GATEWAY", proxy.gateway.to_string().into());
    set("ZIPLINE_TOKEN", proxy.token.into());
    set("ZIPLINE_SOCKET", proxy.socket.into());
    set("ZIPLINE_HOST_DIR", proxy.host.into());
    set("ZIPLINE_REUSE", if proxy.reuse { "tenant" } else { "never" }.into());
    set("ZIPLINE_LOG", config.queue_proxy_log.clone().into());
    set("SERVING_NAMESPACE", proxy.namespace.into());
    set("SERVING_POD", proxy.instance.into());
    match proxy.function {
        None => set("ZIPLINE_GUEST", "1".into()),
        Some((manifest, port)) => {
            set("USER_PORT", port.to_string().into());
            set("CONTAINER_CONCURRENCY", manifest.container_concurrency.to_string().into());
            set("REVISION_TIMEOUT_SECONDS", manifest.timeout.as_secs().to_string().into());
            set("SERVING_SERVICE", manifest.name.service().into());
            set("SERVING_REVISION", manifest.revision.clone().into());
            if let Some(probe) = &manifest.container.readiness_probe {
                let function = SocketAddr::from(([127, 0, 0, 1], port));
                set("SERVING_READINESS_PROBE", probe.to_json(function).into());
            }
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Programs;
    use crate::instance::program::lookup;
    use crate::manifest::parse;

    const MANIFEST: &str = r#"
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: recog}
spec:
  template:
    spec:
      containers:
        - command: [python3, app.py, --listen=$(PORT)]
          args: [$$(PORT), $(NOBODY), "5$"]
          env:
            - {name: NO_PROXY, value: db.internal}
            - {name: WHERE, value: "http://127.0.0.1:$(PORT)/$(K_SERVICE)"}
"#;

    fn manifest() -> ServiceManifest {
        parse(MANIFEST, Path::new("app.yaml"), Path::new("/")).unwrap().remove(0)
    }

    fn config() -> EngineConfig {
        let programs = Programs { zipline: "/bin/zipline".into(), queue_proxy: "/bin/qp".into() };
        EngineConfig::new("/tmp/x".into(), programs)
    }

    #[test]
    fn command_lines_expand_as_in_kubernetes() {
        assert_eq!(words(&manifest(), 4000), ["app.py", "--listen=4000", "$(PORT)", "$(NOBODY)", "5$"]);
    }

    #[test]
    fn queue_proxies_are_told_whether_to_speak_tls() {
        let proxy = QueueProxy {
            namespace: "default",
            function: None,
            instance: "guest",
            socket: Path::new("/run/s"),
            host: Path::new("/run/host"),
            reuse: true,
            token: "secret",
            gateway: "127.0.0.1:8080".parse().unwrap(),
        };
        for (data_tls, word) in [(false, "off"), (true, "on")] {
            let config = EngineConfig { data_tls, ..config() };
            let env = of_queue_proxy(&config, &proxy);
            assert_eq!(lookup(&env, "ZIPLINE_DATA_TLS").unwrap(), word);
            assert_eq!(lookup(&env, "ZIPLINE_HOST_DIR").unwrap(), "/run/host");
            assert_eq!(lookup(&env, "ZIPLINE_REUSE").unwrap(), "tenant");
        }
    }

    #[test]
    fn what_any_instance_may_hold_each_may_get() {
        let told = |own: Option<u64>, in_flight: Option<u64>| {
            let mut manifest = manifest();
            manifest.settings.budget_bytes = own;
            let config = EngineConfig { in_flight_bytes: in_flight, ..config() };
            let proxy = QueueProxy {
                namespace: "default",
                function: Some((&manifest, 4000)),
                instance: "recog-1",
                socket: Path::new("/run/s"),
                host: Path::new("/run/host"),
                reuse: false,
                token: "secret",
                gateway: "127.0.0.1:8080".parse().unwrap(),
            };
            let env = of_queue_proxy(&config, &proxy);
            let bytes = |name| lookup(&env, name).unwrap().to_str().unwrap().parse::<u64>().unwrap();
            (bytes("ZIPLINE_BUDGET_BYTES"), bytes("ZIPLINE_INFLIGHT_BYTES"))
        };
        assert_eq!(told(None, None), (256 << 20, 256 << 20));
        assert_eq!(told(Some(1 << 20), None), (1 << 20, 256 << 20), "others hold more than it may");
        assert_eq!(told(Some(1 << 30), None), (1 << 30, 1 << 30));
        assert_eq!(told(None, Some(64 << 20)), (256 << 20, 64 << 20));
    }

    #[test]
    fn functions_get_the_contract_and_no_stranger_proxy() {
        let mut config = config();
        for (name, value) in [
            ("HOME", "/root"),
            ("https_proxy", "http://elsewhere"),
            ("ZIPLINE_TOKEN", "stranger"),
            ("PORT", "1"),
        ] {
            config.inherited_env.push((name.into(), value.into()));
        }
        let api = LocalApi {
            address: "127.0.0.1:5000".parse().unwrap(),
            socket: Path::new("/run/s"),
            token: "secret",
        };
        let env = of_function(&config, &manifest(), 4000, &api);
        let get = |name: &str| lookup(&env, name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(get("HOME").as_deref(), Some("/root"));
        assert_eq!(get("https_proxy"), None);
        assert_eq!(get("PORT").as_deref(), Some("4000"));
        assert_eq!(get("K_REVISION").as_deref(), Some("recog-00001"));
        assert_eq!(get("ZIPLINE_API").as_deref(), Some("http://127.0.0.1:5000"));
        assert_eq!(get("ZIPLINE_TOKEN").as_deref(), Some("secret"));
        assert_eq!(get("HTTP_PROXY").as_deref(), Some("http://zipline:secret@127.0.0.1:5000"));
        assert_eq!(get("NO_PROXY").unwrap(), format!("{NO_PROXY},db.internal"));
        assert_eq!(get("WHERE").as_deref(), Some("http://127.0.0.1:4000/recog"));

        config.proxy_env = false;
        let env = of_function(&config, &manifest(), 4000, &api);
        assert_eq!(lookup(&env, "HTTP_PROXY"), None);
        assert_eq!(lookup(&env, "NO_PROXY").unwrap(), "db.internal");
    }
}
