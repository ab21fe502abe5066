//! What holds now: modes, allowed images, which keys. Watched in Kubernetes and in files, told to whoever waits.
//!
//! The mode of a pod is the lowest of three: the cluster's (`mode` in ConfigMap `zipline-config`), its namespace's
//! (annotation `zipline.internal/mode`, else `namespace-default` of the ConfigMap), its Service's (annotation of the
//! template). Whatever is absent from the cluster or not understood means `off`: a typing error must not defer anything.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::sleep;
use zipline_protocol::Mode;
use zipline_protocol::controller::{ControllerKey, MODE_ANNOTATION, ModeAnswer, Modes};

use crate::config::Config;
use crate::kubernetes::{Change, Collection, ConfigMap, Kubernetes, Object};
use crate::masters::{Masters, Plan, below_48_bits};

/// Name of the ConfigMap.
pub const CONFIG_MAP: &str = "zipline-config";
/// How often master secrets are read again, and how late a new period is noticed.
const TICK: Duration = Duration::from_secs(5);

/// What the ConfigMap says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Mode of the cluster.
    pub cluster: Mode,
    /// Mode of namespaces without an annotation.
    pub namespace_default: Mode,
    /// Images that the container `queue-proxy` may run, exactly as they stand in pods.
    pub images: Vec<String>,
    /// The master whose keys seal.
    pub sealing_master: Option<u32>,
}

impl Settings {
    /// Without a ConfigMap nothing is deferred and nobody gets keys.
    #[must_use]
    pub fn absent() -> Self {
        Self { cluster: Mode::Off, namespace_default: Mode::Off, images: Vec::new(), sealing_master: None }
    }

    /// Reads the ConfigMap's data. What is not understood is `off` or absent, and one line each in the second value.
    #[must_use]
    pub fn read(data: &BTreeMap<String, String>) -> (Self, Vec<String>) {
        let mut problems = Vec::new();
        let mut mode = |name: &str, default: Mode| match data.get(name).map(|text| text.trim()) {
            None => default,
            Some(word) => word.parse().unwrap_or_else(|error| {
                problems.push(format!("{name}: {error}; taken as off"));
                Mode::Off
            }),
        };
        let cluster = mode("mode", Mode::Off);
        let namespace_default = mode("namespace-default", Mode::On);
        let separators = |character: char| character == ',' || character.is_whitespace();
        let images = data.get("queue-proxy-images").map(String::as_str).unwrap_or_default();
        let images = images.split(separators).filter(|image| !image.is_empty()).map(str::to_owned).collect();
        let sealing_master = data.get("sealing-master").and_then(|text| {
            let number = text.trim().parse().ok();
            if number.is_none() {
                problems.push(format!("sealing-master: {text:?} is no number; the lowest master seals"));
            }
            number
        });
        (Self { cluster, namespace_default, images, sealing_master }, problems)
    }
}

/// What holds now.
#[derive(Debug, Clone)]
pub struct State {
    settings: Option<Settings>,
    namespaces: Option<HashMap<String, Mode>>,
    masters: Masters,
    plan: Plan,
}

impl State {
    /// Whether everything has been read once.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.settings.is_some() && self.namespaces.is_some()
    }

    /// The images that the container `queue-proxy` may run.
    #[must_use]
    pub fn images(&self) -> Vec<String> {
        self.settings.as_ref().map(|settings| settings.images.clone()).unwrap_or_default()
    }

    /// The modes of a pod in `namespace` whose Service says `service`.
    #[must_use]
    pub fn modes(&self, namespace: &str, service: Mode) -> Modes {
        let (Some(settings), Some(namespaces)) = (&self.settings, &self.namespaces) else {
            return Modes { cluster: Mode::Off, namespace: Mode::Off, service };
        };
        let namespace = namespaces.get(namespace).copied().unwrap_or(settings.namespace_default);
        Modes { cluster: settings.cluster, namespace, service }
    }

    /// The same as one answer.
    #[must_use]
    pub fn answer(&self, namespace: &str, service: Mode) -> ModeAnswer {
        let mode = self.modes(namespace, service).effective();
        let keys = self.plan.digest();
        let digest = Sha256::new().chain_update(mode.as_str()).chain_update(keys.to_be_bytes()).finalize();
        ModeAnswer { revision: below_48_bits(&digest), mode, keys }
    }

    /// The keys of `namespace`.
    #[must_use]
    pub fn keys(&self, namespace: &str) -> Vec<ControllerKey> {
        self.masters.keys(namespace, &self.plan)
    }

    /// Which keys there are.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }
}

/// Where everybody reads what holds now. Clones are the same board.
#[derive(Debug, Clone)]
pub struct Board {
    state: watch::Sender<State>,
    period: Duration,
}

impl Board {
    /// A board that knows `masters` and nothing else.
    #[must_use]
    pub fn new(masters: Masters, period: Duration) -> Self {
        let plan = masters.plan(None, period, since_1970());
        Self { state: watch::Sender::new(State { settings: None, namespaces: None, masters, plan }), period }
    }

    /// What holds now and whatever follows.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Takes what the ConfigMap says.
    pub fn set_settings(&self, settings: Settings) {
        self.state.send_if_modified(|state| {
            if state.settings.as_ref() == Some(&settings) {
                return false;
            }
            tracing::info!(
                cluster = settings.cluster.as_str(),
                namespace_default = settings.namespace_default.as_str(),
                images = ?settings.images,
                sealing_master = settings.sealing_master,
                "settings have changed"
            );
            state.plan = state.masters.plan(settings.sealing_master, self.period, since_1970());
            state.settings = Some(settings);
            true
        });
    }

    /// Takes a change of namespaces.
    pub fn change_namespaces(&self, change: Change<Object>) {
        self.state.send_if_modified(|state| match change {
            Change::All(all) => {
                let modes: HashMap<_, _> = all.into_iter().filter_map(annotated).collect();
                let changed = state.namespaces.as_ref() != Some(&modes);
                state.namespaces = Some(modes);
                changed
            }
            Change::Gone(namespace) => {
                let known = state.namespaces.get_or_insert_default();
                known.remove(&namespace.metadata.name).is_some()
            }
            Change::Present(namespace) => {
                let known = state.namespaces.get_or_insert_default();
                let name = namespace.metadata.name.clone();
                match annotated(namespace) {
                    Some((name, mode)) => known.insert(name, mode) != Some(mode),
                    None => known.remove(&name).is_some(),
                }
            }
        });
    }

    /// Takes master secrets, new or the same, and looks at the clock.
    pub fn set_masters(&self, masters: Masters) {
        self.state.send_if_modified(|state| {
            let sealing = state.settings.as_ref().and_then(|settings| settings.sealing_master);
            let plan = masters.plan(sealing, self.period, since_1970());
            let changed = masters != state.masters || plan.digest() != state.plan.digest();
            if changed {
                tracing::info!(serials = ?plan.serials(), active = plan.active(), "keys have changed");
            }
            // How long it is valid changes with every look and is nobody's news.
            state.plan = plan;
            state.masters = masters;
            changed
        });
    }

    /// Keeps the board true, for ever.
    pub async fn run(&self, kubernetes: Kubernetes, config: Config) {
        let map = Collection {
            path: "/api/v1/namespaces/{namespace}/configmaps",
            namespace: config.namespace.clone(),
            fields: "metadata.name%3Dzipline-config",
            metadata_only: false,
        };
        let namespaces = Collection {
            path: "/api/v1/namespaces",
            namespace: String::new(),
            fields: "",
            metadata_only: true,
        };
        let settings = kubernetes.watch(&map, |change| self.change_settings(change));
        let namespaces = kubernetes.watch(&namespaces, |change| self.change_namespaces(change));
        let masters = async {
            loop {
                sleep(TICK).await;
                match Masters::load(&config.masters) {
                    Ok(masters) => self.set_masters(masters),
                    Err(error) => tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "the master secrets in use stay"
                    ),
                }
            }
        };
        tokio::join!(settings, namespaces, masters);
    }

    fn change_settings(&self, change: Change<ConfigMap>) {
        let map = match change {
            Change::All(maps) => maps.into_iter().find(|map| map.metadata.name == CONFIG_MAP),
            Change::Present(map) => Some(map),
            Change::Gone(_) => None,
        };
        let Some(map) = map else {
            tracing::error!("there is no ConfigMap {CONFIG_MAP}: every mode is off");
            return self.set_settings(Settings::absent());
        };
        let (settings, problems) = Settings::read(&map.data);
        for problem in problems {
            tracing::error!(problem, "ConfigMap {CONFIG_MAP} is not valid");
        }
        self.set_settings(settings);
    }
}

/// The mode that a namespace's annotation, or else its label, sets.
fn annotated(namespace: Object) -> Option<(String, Mode)> {
    let metadata = namespace.metadata;
    let word = metadata.annotations.get(MODE_ANNOTATION).or(metadata.labels.get(MODE_ANNOTATION))?;
    let mode = word.parse().unwrap_or_else(|error| {
        tracing::error!(namespace = metadata.name, %error, "the namespace's mode is not valid: off");
        Mode::Off
    });
    Some((metadata.name, mode))
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, mode: Option<&str>) -> Object {
        let annotations = mode.map(|mode| serde_json::json!({MODE_ANNOTATION: mode}));
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "annotations": annotations.unwrap_or_default()},
        }))
        .unwrap_or_else(|_| {
            let mut object = Object::default();
            object.metadata.name = name.to_owned();
            object
        })
    }

    fn settings(pairs: &[(&str, &str)]) -> (Settings, Vec<String>) {
        Settings::read(&pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn the_lowest_mode_holds_and_what_is_wrong_is_off() {
        let board = Board::new(Masters::default(), Duration::from_secs(86_400));
        let mut state = board.subscribe();
        assert_eq!(state.borrow().modes("shop", Mode::On).effective(), Mode::Off);
        board.set_settings(settings(&[("mode", "on"), ("namespace-default", "receive")]).0);
        board.change_namespaces(Change::All(vec![namespace("canary", Some("on")), namespace("shop", None)]));
        assert!(state.borrow_and_update().is_complete());
        let mode = |name: &str, service| board.subscribe().borrow().modes(name, service).effective();
        assert_eq!(mode("canary", Mode::On), Mode::On);
        assert_eq!(mode("canary", Mode::Receive), Mode::Receive);
        assert_eq!(mode("shop", Mode::On), Mode::Receive);
        board.change_namespaces(Change::Present(namespace("canary", Some("onn"))));
        assert_eq!(mode("canary", Mode::On), Mode::Off);
        board.change_namespaces(Change::Gone(namespace("canary", None)));
        assert_eq!(mode("canary", Mode::On), Mode::Receive);
        board.set_settings(Settings::absent());
        assert_eq!(mode("shop", Mode::On), Mode::Off);
    }

    #[test]
    fn only_what_changes_something_wakes_who_waits() {
        let board = Board::new(Masters::default(), Duration::from_secs(86_400));
        let (good, problems) = settings(&[("mode", "on"), ("queue-proxy-images", "a:1, b:2\n")]);
        assert_eq!((problems.len(), good.images.len()), (0, 2));
        board.set_settings(good.clone());
        board.change_namespaces(Change::All(Vec::new()));
        let mut state = board.subscribe();
        state.borrow_and_update();
        board.set_settings(good);
        board.change_namespaces(Change::Present(namespace("shop", None)));
        board.set_masters(Masters::default());
        assert!(!state.has_changed().unwrap());
        let before = state.borrow().answer("shop", Mode::On);
        board.change_namespaces(Change::Present(namespace("shop", Some("off"))));
        assert!(state.has_changed().unwrap());
        let after = state.borrow_and_update().answer("shop", Mode::On);
        assert_eq!((before.mode, after.mode), (Mode::On, Mode::Off));
        assert!(before.revision != after.revision && before.keys == after.keys);
    }

    #[test]
    fn a_typing_error_is_off_and_told() {
        let (settings, problems) = settings(&[("mode", "onn"), ("sealing-master", "two")]);
        assert_eq!((settings.cluster, settings.sealing_master), (Mode::Off, None));
        assert_eq!(problems.len(), 2, "{problems:?}");
    }
}
