//! What to set where the Knative Operator owns Knative's ConfigMaps: it would put back whatever is patched there.

use zipline_protocol::controller::AUDIENCE;

use super::super::manifests::quoted;
use super::super::settings::{AUDIENCES, PODINFO, ROOT_CA};

/// The part of a KnativeServing that says the same as the patches of the ConfigMaps.
///
/// # Source
/// The Knative Operator's `spec.registry.override` (the image by its container's name) and `spec.config` (ConfigMaps without
/// their prefix `config-`).
pub(super) fn fragment(image: &str, root_ca: &str) -> String {
    let (image, root_ca) = (quoted(image), quoted(root_ca));
    format!(
        "# Merge into your KnativeServing; the Knative Operator owns these settings.\n\
         apiVersion: operator.knative.dev/v1beta1\n\
         kind: KnativeServing\n\
         spec:\n  \
           registry:\n    \
             override:\n      \
               queue-proxy: {image}\n  \
           config:\n    \
             deployment:\n      \
               {AUDIENCES}: \"{AUDIENCE}\"\n      \
               {ROOT_CA}: {root_ca}\n    \
             features:\n      \
               {PODINFO}: \"enabled\"\n"
    )
}
