//! A queue-proxy of our own, without a function, for as long as this process wants it.

use http::Method;
use zipline_engine::control::GuestAccess;
use zipline_runtime::AbortOnDrop;

use crate::control::{Control, Lines};
use crate::exit::{Failure, message};
use crate::unix_http::empty;

/// A guest. It ends when this is dropped, since the engine watches the connection.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) access: GuestAccess,
    control: Control,
    pulse: AbortOnDrop,
}

impl Guest {
    pub(crate) async fn open(mut control: Control, namespace: &str) -> Result<Self, Failure> {
        let answer =
            control.send(Method::POST, &format!("/v1/guests?namespace={namespace}"), empty()).await?;
        let mut lines = Lines::new(answer);
        let first = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => return Err(control.broken("it gave no guest")),
            Err(error) => return Err(control.broken(error)),
        };
        let access = serde_json::from_slice(&first).map_err(|error| {
            let context =
                message("the engine's word about the guest is not understood; is it of the same version?");
            Failure::failed(anyhow::Error::new(error).context(context))
        })?;
        // The engine writes an empty line every second, which somebody has to take.
        let pulse = control
            .tasks()
            .spawn_owned("guest pulse", async move { while let Ok(Some(_)) = lines.next().await {} });
        Ok(Self { access, control, pulse })
    }

    /// Whether the engine has ended it.
    pub(crate) fn is_over(&self) -> bool {
        self.pulse.is_finished()
    }

    /// The owner of what belongs to it.
    pub(crate) fn tasks(&self) -> &zipline_runtime::Tasks {
        self.control.tasks()
    }
}
