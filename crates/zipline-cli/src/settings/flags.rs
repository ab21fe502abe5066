//! The flags of `up` and `config show`, made from the catalogue.

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{CATALOGUE, variable};

/// Settings that stand on the command line, not yet understood.
#[derive(Debug, Default, Clone)]
pub(crate) struct SettingFlags {
    pub(crate) given: Vec<(&'static str, String)>,
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = Self::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for setting in CATALOGUE {
            if let Some(value) = matches.get_one::<String>(setting.key) {
                self.given.retain(|(key, _)| *key != setting.key);
                self.given.push((setting.key, value.clone()));
            }
        }
        Ok(())
    }
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        CATALOGUE.iter().fold(command, |command, setting| {
            let help =
                format!("{} [default: {}] [env: {}]", setting.about, setting.default, variable(setting.key));
            command.arg(
                Arg::new(setting.key)
                    .long(setting.key)
                    .value_name(setting.value_name)
                    .help(help)
                    .allow_hyphen_values(true)
                    .help_heading("Settings"),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
