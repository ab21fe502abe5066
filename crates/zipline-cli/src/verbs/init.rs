//! `zipline init`: writes a small working application.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use crate::exit::{Failure, Outcome, message};
use crate::output::{data, say};

/// What is written: name and content.
const PYTHON: &[(&str, &str)] = &[
    ("services.yaml", include_str!("../../templates/python/services.yaml")),
    ("sender.py", include_str!("../../templates/python/sender.py")),
    ("receiver.py", include_str!("../../templates/python/receiver.py")),
    ("README.md", include_str!("../../templates/python/README.md")),
];

/// `init`
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    #[command(subcommand)]
    language: Language,
}

#[derive(Debug, Subcommand)]
enum Language {
    /// Two functions in Python, with nothing but its standard library
    Python {
        /// Where to; it is made if it is not there
        #[arg(default_value = "zipline-app", value_name = "FOLDER")]
        folder: PathBuf,
    },
}

pub(crate) fn run(args: &InitArgs) -> Outcome {
    let Language::Python { folder } = &args.language;
    write(folder, PYTHON)?;
    for (name, _) in PYTHON {
        data(format!("{}\n", folder.join(name).display()))?;
    }
    say(format!("zipline: run it with `zipline up {}`", folder.join("services.yaml").display()));
    Ok(0)
}

/// Writes all files, or none if one is there already.
fn write(folder: &Path, files: &[(&str, &str)]) -> Result<(), Failure> {
    let there: Vec<_> = files
        .iter()
        .map(|(name, _)| folder.join(name))
        .filter(|path| fs::symlink_metadata(path).is_ok())
        .map(|path| path.display().to_string())
        .collect();
    if !there.is_empty() {
        return Err(Failure::usage(message(format!(
            "{} already there, nothing was written: choose another folder or remove them",
            there.join(", ")
        ))));
    }
    let fail = |path: &Path, error: io::Error| {
        Failure::failed(anyhow::Error::new(error).context(format!("cannot write {}", path.display())))
    };
    fs::create_dir_all(folder).map_err(|error| fail(folder, error))?;
    for (name, content) in files {
        let path = folder.join(name);
        // Never over a file that appeared just now.
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        file.and_then(|mut file| file.write_all(content.as_bytes())).map_err(|error| fail(&path, error))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use zipline_engine::manifest;

    use super::*;

    #[test]
    fn the_application_is_one_the_engine_takes() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a/b");
        write(&target, PYTHON).unwrap();
        let services = manifest::read_files(&[target.join("services.yaml")]).unwrap();
        let names: Vec<_> = services.iter().map(|service| service.name.to_string()).collect();
        assert_eq!(names, ["sender.default", "receiver.default"]);
        for service in &services {
            assert_eq!(service.notes, [""; 0]);
            assert!(service.container.working_dir.join(&service.container.command[1]).is_file());
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("sender.py"), "mine").unwrap();
        let failure = write(folder.path(), PYTHON).unwrap_err();
        assert_eq!(failure.status(), crate::exit::USAGE);
        assert!(failure.to_string().contains("sender.py already there, nothing was written"), "{failure}");
        assert_eq!(fs::read_to_string(folder.path().join("sender.py")).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
