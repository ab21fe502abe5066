use super::*;
use http::Response;
use parking_lot::Mutex;
use zipline_http::{ClientConfig, ServeLimits, handler_fn, serve};
use zipline_runtime::Tasks;

fn parse(json: &str) -> Result<Probe, String> {
    Probe::parse(json, 8080).map_err(|error| error.to_string())
}

#[test]
fn the_default_is_a_connection_to_the_user_port() {
    let probe = parse("").unwrap();
    assert_eq!(probe.check, Check::Tcp { address: "127.0.0.1:8080".parse().unwrap() });
    assert_eq!((probe.period, probe.success_threshold), (None, 1));
}

#[test]
fn kubernetes_form_is_read() {
    let probe = parse(
        r#"{"httpGet":{"path":"/ok?a=b","port":9000,"host":"127.0.0.1","scheme":"HTTP",
            "httpHeaders":[{"name":"X-A","value":"b"}]},"periodSeconds":5,"timeoutSeconds":2,"failureThreshold":4}"#,
    )
    .unwrap();
    let Check::Http { address, path, headers } = &probe.check else { panic!("{probe:?}") };
    assert_eq!((address.port(), path.to_string(), headers.len()), (9000, "/ok?a=b".to_owned(), 1));
    assert_eq!((probe.period, probe.timeout), (Some(Duration::from_secs(5)), Duration::from_secs(2)));
    assert_eq!((probe.success_threshold, probe.failure_threshold), (1, 4));
}

#[test]
fn what_is_not_run_is_refused_by_name() {
    for (json, part) in [
        (r#"{"exec":{"command":["true"]}}"#, "exec probes are not supported"),
        (r#"{"grpc":{"port":1}}"#, "grpc probes are not supported"),
        (r#"{"httpGet":{"scheme":"HTTPS"}}"#, "httpGet.scheme \"HTTPS\""),
        (r#"{"httpGet":{"pot":1}}"#, "unknown field `pot`"),
        (r#"{"tcpSocket":{"port":"http"}}"#, "port \"http\" is a name"),
        (r#"{"httpGet":{},"tcpSocket":{}}"#, "exclude each other"),
        ("{", "EOF"),
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.contains(part), "{json}: {error}");
    }
}

#[tokio::test]
async fn follows_the_function() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let status = Arc::new(Mutex::new(500));
    let tasks = Tasks::new();
    let answer = {
        let status = status.clone();
        move |_| {
            let status = *status.lock();
            async move { answer(status) }
        }
    };
    tasks.spawn("function", serve(listener, handler_fn(answer), ServeLimits::default(), tasks.clone()));
    let probe = Probe {
        check: Check::Http { address, path: "/".parse().unwrap(), headers: Vec::new() },
        timeout: Duration::from_secs(5),
        period: Some(Duration::from_millis(1)),
        success_threshold: 2,
        failure_threshold: 2,
    };
    let readiness = Readiness::new(false);
    let _driver = tasks.spawn_owned(
        "probe",
        readiness.clone().run(probe, Client::new(ClientConfig::default(), tasks.clone())),
    );
    assert!(!readiness.is_ready());
    *status.lock() = 204;
    readiness.ready().await;
    *status.lock() = 503;
    readiness.becomes(false).await;
    *status.lock() = 302;
    readiness.ready().await;
    tasks.shutdown(Duration::ZERO).await;
}

fn answer(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response
}
