//! Settings in Knative's ConfigMaps: what they become, and how they get back to what they were.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zipline_protocol::controller::AUDIENCE;

/// Annotation of a changed ConfigMap: what each setting was, and what it was set to.
pub(super) const RECORD: &str = "zipline.internal/previous";
/// ConfigMap with the queue-proxy's image.
pub(super) const DEPLOYMENT: &str = "config-deployment";
/// ConfigMap with feature flags.
pub(super) const FEATURES: &str = "config-features";

/// Image of the queue-proxy.
pub(super) const IMAGE: &str = "queue-sidecar-image";
/// The key's name in old releases, which the new one overrides.
pub(super) const OLD_IMAGE: &str = "queueSidecarImage";
/// Audiences of tokens that are mounted into queue-proxies, separated by commas.
pub(super) const AUDIENCES: &str = "queue-sidecar-token-audiences";
/// Certificates handed to queue-proxies, in PEM.
pub(super) const ROOT_CA: &str = "queue-sidecar-rootca";
/// Whether queue-proxies can read their pod's annotations.
pub(super) const PODINFO: &str = "queueproxy.mount-podinfo";

/// A ConfigMap, as far as settings go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ConfigMap {
    pub(super) data: BTreeMap<String, String>,
    record: Record,
}

type Record = BTreeMap<String, Change>;

/// One setting that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Change {
    /// None: it was absent.
    was: Option<String>,
    set: String,
}

/// What Zipline needs in a ConfigMap.
#[derive(Debug, Clone)]
pub(super) enum Wanted<'a> {
    /// Exactly this.
    Value(&'a str),
    /// This among others, separated by commas.
    Member(&'a str),
    /// This certificate after others.
    Certificate(&'a str),
}

/// Settings of [`DEPLOYMENT`] and [`FEATURES`].
pub(super) fn wanted<'a>(
    image: &'a str,
    root_ca: &'a str,
) -> [(&'static str, Vec<(&'static str, Wanted<'a>)>); 2] {
    let deployment = vec![
        (IMAGE, Wanted::Value(image)),
        (AUDIENCES, Wanted::Member(AUDIENCE)),
        (ROOT_CA, Wanted::Certificate(root_ca)),
    ];
    [(DEPLOYMENT, deployment), (FEATURES, vec![(PODINFO, Wanted::Value("enabled"))])]
}

impl Wanted<'_> {
    fn applied_to(&self, base: Option<&str>) -> String {
        let base = base.unwrap_or_default();
        match self {
            Self::Value(value) => (*value).to_owned(),
            Self::Member(member) => {
                let members =
                    base.split(',').map(str::trim).filter(|text| !text.is_empty() && text != member);
                members.chain([*member]).collect::<Vec<_>>().join(",")
            }
            Self::Certificate(pem) if base.trim().is_empty() => format!("{}\n", pem.trim()),
            Self::Certificate(pem) => format!("{}\n{}\n", base.trim(), pem.trim()),
        }
    }
}

impl ConfigMap {
    /// From the object as the API server has it. A record that cannot be read is taken as none.
    pub(super) fn read(object: &Value) -> Self {
        let text = &object["metadata"]["annotations"][RECORD];
        Self {
            data: serde_json::from_value(object["data"].clone()).unwrap_or_default(),
            record: text.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default(),
        }
    }

    /// The merge patch that brings what is wanted; `None` if it is all there.
    ///
    /// The record keeps what was there before the first change. A value that somebody else wrote since is what was there.
    pub(super) fn install(&self, wanted: &[(&str, Wanted<'_>)]) -> Option<Value> {
        let (mut data, mut record) = (BTreeMap::new(), self.record.clone());
        for (key, wanted) in wanted {
            let current = self.data.get(*key);
            let was = match self.record.get(*key) {
                Some(change) if current == Some(&change.set) => change.was.clone(),
                _ => current.cloned(),
            };
            let set = wanted.applied_to(was.as_deref());
            if current != Some(&set) {
                data.insert(*key, set.clone());
                record.insert((*key).to_owned(), Change { was, set });
            }
        }
        if data.is_empty() {
            return None;
        }
        let record = serde_json::to_string(&record).expect("a map of texts is always JSON");
        Some(json!({"metadata": {"annotations": {RECORD: record}}, "data": data}))
    }

    /// The merge patch that brings back what was, and what stays because somebody else has changed it since; `None` if
    /// nothing was ever changed.
    pub(super) fn restore(&self) -> Option<(Value, Vec<String>)> {
        if self.record.is_empty() {
            return None;
        }
        let (mut data, mut left) = (BTreeMap::new(), Vec::new());
        for (key, Change { was, set }) in &self.record {
            if self.data.get(key) == Some(set) {
                data.insert(key.clone(), was.clone());
            } else {
                left.push(key.clone());
            }
        }
        Some((json!({"metadata": {"annotations": {RECORD: null}}, "data": data}), left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(data: Value) -> Value {
        json!({"metadata": {"annotations": {"other": "kept"}}, "data": data})
    }

    /// As RFC 7396 says.
    fn merge(object: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else { return *object = patch.clone() };
        if !object.is_object() {
            *object = json!({});
        }
        for (key, value) in patch {
            if value.is_null() {
                object.as_object_mut().unwrap().remove(key);
            } else {
                merge(&mut object[key], value);
            }
        }
    }

    fn install(object: &mut Value, image: &str, ca: &str) -> bool {
        let [(_, wanted), _] = wanted(image, ca);
        let patch = ConfigMap::read(object).install(&wanted);
        patch.inspect(|patch| merge(object, patch)).is_some()
    }

    #[test]
    fn there_and_back() {
        let stock = map(json!({IMAGE: "stock:1", AUDIENCES: "a, b", "_example": "text"}));
        let mut object = stock.clone();
        assert!(install(&mut object, "ours:1", "CA1"));
        assert_eq!(object["data"][IMAGE], "ours:1");
        assert_eq!(object["data"][AUDIENCES], "a,b,zipline-controller");
        assert_eq!(object["data"][ROOT_CA], "CA1\n");
        assert!(!install(&mut object, "ours:1", "CA1"), "a second time there is nothing to do");
        // An upgrade keeps what was there at first.
        assert!(install(&mut object, "ours:2", "CA2"));
        assert_eq!(object["data"][ROOT_CA], "CA2\n");
        let (patch, left) = ConfigMap::read(&object).restore().unwrap();
        merge(&mut object, &patch);
        assert_eq!((object, left), (stock, vec![]));
    }

    #[test]
    fn what_others_changed_is_theirs() {
        let mut object = map(json!({IMAGE: "stock:1"}));
        install(&mut object, "ours:1", "CA");
        object["data"][IMAGE] = json!("stock:2");
        let (patch, left) = ConfigMap::read(&object).restore().unwrap();
        assert_eq!(left, [IMAGE]);
        assert!(patch["data"].get(IMAGE).is_none());
        // Installed over it, it is what uninstall brings back.
        install(&mut object, "ours:1", "CA");
        let (patch, left) = ConfigMap::read(&object).restore().unwrap();
        assert_eq!((patch["data"][IMAGE].as_str(), left), (Some("stock:2"), vec![]));
    }

    #[test]
    fn certificates_of_others_stay() {
        let mut object = map(json!({IMAGE: "stock:1", ROOT_CA: "THEIRS\n"}));
        install(&mut object, "ours:1", "OURS");
        assert_eq!(object["data"][ROOT_CA], "THEIRS\nOURS\n");
        assert_eq!(ConfigMap::read(&map(json!({}))).restore(), None);
    }
}
