//! Finds a function's program before it is started, so that a wrong command is a clear error and not a crash loop.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::EngineConfig;
use crate::error::CommandError;
use crate::manifest::ServiceManifest;

/// The variables a function inherits and those of its manifest, later ones in place of earlier ones.
pub(crate) fn lookup<'a>(env: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsStr> {
    env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
}

/// The program that a manifest's command names, as an absolute path.
pub(crate) fn find(manifest: &ServiceManifest, config: &EngineConfig) -> Result<PathBuf, CommandError> {
    let container = &manifest.container;
    let own_path = container.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| OsStr::new(value));
    let path = own_path.or_else(|| lookup(&config.inherited_env, "PATH"));
    let command = &container.command[0];
    resolve(command, &container.working_dir, path).map_err(|reason| CommandError {
        file: manifest.file.clone(),
        service: manifest.name.clone(),
        command: command.clone(),
        reason,
    })
}

fn resolve(command: &str, folder: &Path, path: Option<&OsStr>) -> Result<PathBuf, String> {
    if command.contains('/') {
        let program = folder.join(command);
        return match is_program(&program) {
            Some(true) => Ok(program),
            Some(false) => Err(format!("cannot be run: {} is not an executable file", program.display())),
            None => Err(format!(
                "does not exist: there is no {}; commands with / are relative to workingDir",
                program.display()
            )),
        };
    }
    let path = path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    std::env::split_paths(path)
        .map(|entry| folder.join(entry).join(command))
        .find(|program| is_program(program) == Some(true))
        .ok_or_else(|| {
            format!("does not exist: it is in none of the folders of PATH ({}); install it, or write ./{command} for a file in workingDir", path.to_string_lossy())
        })
}

/// Whether a file can be executed by somebody; none if there is no such file.
fn is_program(path: &Path) -> Option<bool> {
    let data = std::fs::metadata(path).ok()?;
    Some(data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// The interpreter that a script's first line names.
fn interpreter(program: &Path) -> Option<PathBuf> {
    use std::io::Read;
    let mut head = [0_u8; 256];
    let read = std::fs::File::open(program).ok()?.read(&mut head).ok()?;
    let line = head[..read].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let word = line.split(|byte| matches!(byte, b' ' | b'\t')).find(|word| !word.is_empty())?;
    Some(PathBuf::from(std::str::from_utf8(word).ok()?))
}

/// Why a process of another user could not run this; none if it could.
pub(crate) fn unreachable_for_others(program: &Path, working_dir: &Path) -> Option<String> {
    let interpreter = interpreter(program);
    for file in [Some(program), interpreter.as_deref()].into_iter().flatten() {
        let Ok(real) = std::fs::canonicalize(file) else {
            return Some(format!("{} cannot be resolved", file.display()));
        };
        // The link's own folders matter as much as those of what it points to.
        for path in [file, real.as_path()] {
            if let Some(folder) = path.parent().and_then(closed_folder) {
                return Some(format!("other users cannot pass through {}", folder.display()));
            }
        }
        let executable = std::fs::metadata(&real).is_ok_and(|data| data.mode() & 0o001 != 0);
        if !executable {
            return Some(format!("other users cannot execute {}", real.display()));
        }
    }
    closed_folder(working_dir).map(|folder| format!("other users cannot pass through {}", folder.display()))
}

/// The first folder on the way to `folder`, itself included, that others cannot pass.
pub(crate) fn closed_folder(folder: &Path) -> Option<PathBuf> {
    let mut ways: Vec<&Path> = folder.ancestors().collect();
    ways.reverse();
    ways.into_iter()
        .find(|way| !std::fs::metadata(way).is_ok_and(|data| data.mode() & 0o001 != 0))
        .map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};

    fn script(folder: &Path, name: &str, mode: u32) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn commands_are_found_as_a_shell_would() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "serve", 0o755);
        script(folder.path(), "data", 0o644);
        let path = folder.path().as_os_str();
        assert_eq!(resolve("serve", Path::new("/"), Some(path)).unwrap(), program);
        assert_eq!(resolve("./serve", folder.path(), None).unwrap(), folder.path().join("./serve"));
        assert!(resolve("data", Path::new("/"), Some(path)).unwrap_err().contains("does not exist"));
        assert!(resolve("./data", folder.path(), None).unwrap_err().contains("not an executable file"));
        assert!(resolve("./none", folder.path(), None).unwrap_err().contains("does not exist"));
    }

    #[test]
    fn closed_folders_and_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let program = script(folder.path(), "serve", 0o755);
        assert_eq!(unreachable_for_others(&program, folder.path()), None);
        assert_eq!(interpreter(&program), Some(PathBuf::from("/bin/sh")));
        fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
        assert!(unreachable_for_others(&program, folder.path()).unwrap().contains("cannot execute"));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        assert!(unreachable_for_others(&program, folder.path()).unwrap().contains("cannot pass through"));
    }
}
