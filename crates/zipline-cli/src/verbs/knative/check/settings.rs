//! Knative's settings and the controller's.

use zipline_protocol::Mode;
use zipline_protocol::controller::AUDIENCE;

use super::super::cluster::{self, Knative, Told};
use super::super::kubectl::Kubectl;
use super::super::manifests::{CANARY_LABEL, CONFIG};
use super::super::secrets;
use super::super::settings::{AUDIENCES, ConfigMap, FEATURES, IMAGE, OLD_IMAGE, PODINFO, ROOT_CA};
use crate::exit::Failure;
use crate::findings::Finding;

const INSTALL: &str = "run `zipline knative install` again";

pub(super) async fn all(kubectl: &Kubectl, knative: &Knative) -> Result<Vec<Finding>, Failure> {
    let told = Told::find(kubectl).await?;
    let mut findings = vec![mode(told.as_ref())];
    let deployment = ConfigMap::read(&knative.deployment).data;
    let images = told.unwrap_or_default().images;
    let canaries = kubectl.get(&["namespaces", "-l", CANARY_LABEL]).await?;
    let canaries = canaries.and_then(|list| Some(list["items"].as_array()?.len())).unwrap_or_default();
    let image = deployment.get(IMAGE).or_else(|| deployment.get(OLD_IMAGE));
    if let Some(owner) = &knative.operator {
        findings.push(Finding::ok("operator", format!("KnativeServing {owner} owns Knative's ConfigMaps")));
    }
    if !image.is_some_and(|image| images.contains(image)) {
        let image = image.map_or("none", String::as_str);
        findings.push(if canaries > 0 {
            Finding::ok("queue-proxy image", format!("{image}; Zipline's in {canaries} canary namespaces"))
        } else {
            Finding::warning(
                "queue-proxy image",
                format!("{image}, which {CONFIG} does not list: no pod gets Zipline's"),
                "`zipline knative install --canary NAMESPACE`, then --cluster-wide",
            )
        });
        return Ok(findings);
    }
    findings.push(Finding::ok("queue-proxy image", image.cloned().unwrap_or_default()));
    let audiences = deployment.get(AUDIENCES).map(String::as_str).unwrap_or_default();
    findings.push(if audiences.split(',').any(|audience| audience.trim() == AUDIENCE) {
        Finding::ok("token audience", audiences)
    } else {
        let found = format!("{AUDIENCES} is {audiences:?}: queue-proxies get no token and no keys");
        Finding::error("token audience", found, INSTALL)
    });
    let authority = cluster::secrets(kubectl).await?;
    let authority =
        authority.serving.as_ref().and_then(|object| secrets::text(object, "ca.crt")).unwrap_or_default();
    let handed_on = deployment.get(ROOT_CA).map(String::as_str).unwrap_or_default();
    findings.push(if !authority.is_empty() && handed_on.contains(authority.trim()) {
        Finding::ok("root CA", "queue-proxies get the controller's")
    } else {
        let found = format!("{ROOT_CA} does not hold the controller's CA: queue-proxies cannot trust it");
        Finding::error("root CA", found, INSTALL)
    });
    let podinfo = knative.features["data"][PODINFO].as_str().unwrap_or("disabled");
    findings.push(match podinfo {
        "enabled" | "allowed" => Finding::ok("podinfo", format!("{PODINFO} is {podinfo}")),
        _ => Finding::warning(
            "podinfo",
            format!("{PODINFO} of {FEATURES} is {podinfo}: annotations zipline.internal/… are not seen"),
            INSTALL,
        ),
    });
    Ok(findings)
}

fn mode(told: Option<&Told>) -> Finding {
    let Some(told) = told else {
        return Finding::error("mode", format!("there is no ConfigMap {CONFIG}: off"), INSTALL);
    };
    let mode = told.mode.as_deref().unwrap_or_default().trim();
    match mode.parse() {
        Ok(Mode::On) => Finding::ok("mode", "on"),
        Ok(Mode::Receive) => {
            Finding::ok("mode", "receive: everybody can open references, nobody makes any; `on` comes next")
        }
        Ok(Mode::Off) => {
            Finding::warning("mode", "off: everything goes inline", "set mode in ConfigMap zipline-config")
        }
        Err(_) => Finding::error(
            "mode",
            format!("{mode:?} is no mode, and taken as off"),
            "write off, receive or on",
        ),
    }
}
