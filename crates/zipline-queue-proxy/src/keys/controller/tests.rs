//! Against a controller made of the test's own words, over real TLS.

use super::*;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Response;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use zipline_http::{Body, ServeLimits, handler_fn};
use zipline_https::ServerIdentity;
use zipline_protocol::controller::Modes;
use zipline_protocol::{Mode, to_text};

/// A question that waits for its answer.
struct Question {
    path: String,
    token: String,
    answer: oneshot::Sender<Response<Body>>,
}

struct Fake {
    questions: mpsc::Receiver<Question>,
    keyring: Keyring,
    guidance: Guidance,
    tasks: Tasks,
    folder: tempfile::TempDir,
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

impl Fake {
    /// A controller that listens, and a queue-proxy that asks it.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let roots = pem("CERTIFICATE", made.cert.der());
        std::fs::write(folder.path().join("tls.crt"), &roots).unwrap();
        let key = pem("PRIVATE KEY", &made.signing_key.serialize_der());
        std::fs::write(folder.path().join("tls.key"), key).unwrap();
        std::fs::write(folder.path().join("token"), "the-token\n").unwrap();
        let identity = ServerIdentity::load(folder.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = HostPort::new("localhost", listener.local_addr().unwrap().port());
        let (ask, questions) = mpsc::channel(1);
        let handler = handler_fn(move |request: Request<Body>| {
            let ask = ask.clone();
            async move {
                let (answer, answered) = oneshot::channel();
                let path = request.uri().to_string();
                let token = request.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
                ask.send(Question { path, token, answer }).await.unwrap();
                answered.await.unwrap()
            }
        });
        let tasks = Tasks::new();
        let limits = ServeLimits::default();
        drop(tasks.spawn("fake", zipline_https::serve(listener, identity, handler, limits, tasks.clone())));
        let (keyring, guidance) = (Keyring::new("shop"), Guidance::awaited());
        let token = folder.path().join("token");
        let config = ControllerConfig { server, roots, token, revision: "app-00001".into() };
        let controller = Controller::new(config, tasks.clone()).unwrap();
        let (ring, told) = (keyring.clone(), guidance.clone());
        drop(tasks.spawn("controller", async move { controller.run(&ring, &told).await }));
        Self { questions, keyring, guidance, tasks, folder }
    }

    async fn question(&mut self, path: &str) -> Question {
        let question = self.questions.recv().await.unwrap();
        assert_eq!(question.path, path);
        question
    }

    async fn end(self) {
        drop(self.questions);
        self.tasks.shutdown(Duration::ZERO).await;
        drop(self.folder);
    }
}

impl Question {
    fn answer(self, answer: &impl Serialize) {
        let body = serde_json::to_vec(answer).unwrap();
        self.answer.send(Response::new(Body::full(body))).unwrap();
    }

    fn refuse(self, status: u16, word: &str) {
        let problem = serde_json::json!({"type": format!("{REFUSAL_TYPE}{word}")});
        let mut response = Response::new(Body::full(problem.to_string()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        self.answer.send(response).unwrap();
    }
}

/// Keys with these serials; the first one seals.
fn keys(tenant: &str, serials: &[u32], mode: Mode) -> KeysAnswer {
    let keys = serials.iter().enumerate().map(|(index, serial)| ControllerKey {
        id: key_id(tenant, *serial).to_text(),
        secret: to_text(&[u8::try_from(*serial).unwrap(); 32]),
        state: if index == 0 { KeyState::Active } else { KeyState::Accept },
    });
    KeysAnswer {
        tenant: tenant.to_owned(),
        namespace: tenant.to_owned(),
        keys: keys.collect(),
        refresh_seconds: 300,
        valid_seconds: 3600,
        modes: Modes { cluster: mode, namespace: Mode::On, service: Mode::On },
        zone: "eu-1a".into(),
    }
}

#[tokio::test]
async fn keys_then_modes_then_other_keys() {
    let mut fake = Fake::start().await;
    let question = fake.question("/v1/keys").await;
    assert_eq!(question.token, "Bearer the-token");
    assert_eq!((fake.guidance.mode(), fake.guidance.report().unwrap().state), (Mode::Off, "waiting"));
    question.answer(&keys("shop", &[1, 2], Mode::On));

    // The question for the mode comes once keys are there; the next one, once its answer was taken.
    let question = fake.question("/v1/mode").await;
    assert_eq!((fake.guidance.mode(), &*fake.guidance.zone()), (Mode::On, "eu-1a"));
    assert!(fake.keyring.can_seal());
    question.answer(&ModeAnswer { revision: 7, mode: Mode::On, keys: 1 });
    let question = fake.question("/v1/mode?revision=7").await;
    question.answer(&ModeAnswer { revision: 8, mode: Mode::Off, keys: 1 });
    let question = fake.question("/v1/mode?revision=8").await;
    assert_eq!(fake.guidance.mode(), Mode::Off);

    // Other keys are asked for at once, and say nothing about the mode any more.
    question.answer(&ModeAnswer { revision: 9, mode: Mode::Receive, keys: 2 });
    let (mut seen, mut mode) = (0, None);
    while seen < 2 {
        let question = fake.questions.recv().await.unwrap();
        match question.path.as_str() {
            "/v1/keys" => question.answer(&keys("shop", &[3, 2], Mode::On)),
            _ => mode = Some(question),
        }
        seen += 1;
    }
    mode.unwrap().answer(&ModeAnswer { revision: 10, mode: Mode::Receive, keys: 2 });
    let _waiting = fake.question("/v1/mode?revision=10").await;
    assert_eq!(fake.guidance.mode(), Mode::Receive);
    assert_eq!(fake.keyring.serials(), [2, 3]);
    fake.end().await;
}

#[tokio::test]
async fn what_is_refused_or_wrong_is_asked_again_and_never_shown() {
    let mut fake = Fake::start().await;
    fake.question("/v1/keys").await.refuse(403, "image-not-allowed");
    let question = fake.question("/v1/keys").await;
    let report = fake.guidance.report().unwrap();
    assert!(report.error.contains("403") && report.error.contains("image-not-allowed"), "{report:?}");
    question.answer(&keys("other", &[1], Mode::On));
    let question = fake.question("/v1/keys").await;
    assert!(fake.guidance.report().unwrap().error.contains("other"));
    let mut wrong = keys("shop", &[1], Mode::On);
    wrong.keys[0].id = key_id("other", 1).to_text();
    question.answer(&wrong);
    let question = fake.question("/v1/keys").await;
    assert!(!fake.keyring.can_seal() && fake.guidance.mode() == Mode::Off);
    question.answer(&keys("shop", &[1], Mode::On));
    let _waiting = fake.question("/v1/mode").await;
    assert!(fake.keyring.can_seal() && fake.guidance.mode() == Mode::On);
    fake.end().await;
}

#[tokio::test]
async fn keys_that_are_too_old_open_and_do_not_seal() {
    let mut fake = Fake::start().await;
    let mut short = keys("shop", &[1], Mode::On);
    short.valid_seconds = 0;
    fake.question("/v1/keys").await.answer(&short);
    let question = fake.question("/v1/mode").await;
    assert!(fake.keyring.can_seal());
    question.answer(&ModeAnswer { revision: 1, mode: Mode::On, keys: 1 });
    let question = fake.question("/v1/mode?revision=1").await;
    question.answer(&ModeAnswer { revision: 2, mode: Mode::On, keys: 2 });
    // The keys have changed: the first failure finds them past their time.
    let mut failed = 0;
    while failed < 2 {
        let question = fake.questions.recv().await.unwrap();
        match question.path.as_str() {
            "/v1/keys" => {
                question.refuse(503, "busy");
                failed += 1;
            }
            _ => question.answer(&ModeAnswer { revision: 2, mode: Mode::On, keys: 2 }),
        }
    }
    assert!(!fake.keyring.can_seal() && fake.keyring.serials() == [1]);
    assert_eq!(fake.guidance.report().unwrap().state, "failing");
    fake.end().await;
}

#[test]
fn pauses_grow_to_a_minute_and_differ() {
    let mut backoff = Backoff::new();
    let pauses: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
    assert!(pauses[0] <= PAUSE.0 && pauses[19] >= PAUSE.1 / 2 && pauses[19] <= PAUSE.1);
    assert_ne!(pauses[18], pauses[19]);
}
