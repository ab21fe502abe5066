//! Which engine a command is about: the one of a state directory.

use std::path::PathBuf;

use clap::Args;
use zipline_engine::StateDir;

use crate::environment::{Environment, STATE_DIR};

/// Arguments of every verb.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// Where the engine keeps its control socket and logs; one engine per directory [env: ZIPLINE_STATE_DIR]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,
    /// File with settings of `up` [default: zipline.toml, if it is there] [env: ZIPLINE_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// A state directory's path and who chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) path: PathBuf,
    pub(crate) origin: &'static str,
}

impl Chosen {
    /// The flag or variable, for people.
    pub(crate) fn from(&self) -> &'static str {
        match self.origin {
            "flag" => "--state-dir",
            "environment" => STATE_DIR,
            other => other,
        }
    }
}

impl Place {
    /// The state directory: flag, variable, default.
    pub(crate) fn state_dir(&self, environment: &Environment) -> Chosen {
        let chosen = |path: PathBuf, origin| Chosen { path, origin };
        match (&self.state_dir, &environment.state_dir) {
            (Some(path), _) => chosen(path.clone(), "flag"),
            (None, Some(path)) => chosen(path.clone(), "environment"),
            (None, None) => chosen(StateDir::default_path(environment.runtime_dir.as_deref()), "default"),
        }
    }

    /// The file with settings, if one was named.
    pub(crate) fn config(&self, environment: &Environment) -> Option<PathBuf> {
        self.config.clone().or_else(|| environment.config.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_wins_over_the_variable_over_the_default() {
        let mut place = Place { state_dir: Some("/a".into()), config: None };
        let set = Environment::from_variables([("ZIPLINE_STATE_DIR".into(), "/b".into())]);
        assert_eq!(place.state_dir(&set), Chosen { path: "/a".into(), origin: "flag" });
        place.state_dir = None;
        assert_eq!(place.state_dir(&set), Chosen { path: "/b".into(), origin: "environment" });
        assert_eq!(place.state_dir(&Environment::default()).origin, "default");
    }
}
