//! Manifests from files, directories and stdin, and back into files.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::manifest::Source;

const SUFFIXES: &[&str] = &["yaml", "yml", "json"];
pub const STDIN: &str = "-";

/// All texts, in the order named; of a directory in the order of their names. The error is one line, without our name before it.
pub fn read(files: &[PathBuf]) -> Result<Vec<Source>, String> {
    let mut sources = Vec::new();
    for file in files {
        let cannot = |path: &Path, error: &io::Error| {
            format!("cannot read {}: {error}; name files or directories with manifests, or - for stdin", path.display())
        };
        if file == Path::new(STDIN) {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map_err(|error| cannot(Path::new("stdin"), &error))?;
            sources.push(source("stdin", bytes)?);
            continue;
        }
        let mut paths = Vec::new();
        if file.is_dir() {
            below(file, &mut paths).map_err(|error| cannot(file, &error))?;
            if paths.is_empty() {
                return Err(format!("cannot read {}: it has no .yaml, .yml or .json; name another", file.display()));
            }
            paths.sort();
        } else {
            paths.push(file.clone());
        }
        for path in paths {
            let bytes = fs::read(&path).map_err(|error| cannot(&path, &error))?;
            sources.push(source(&path.display().to_string(), bytes)?);
        }
    }
    Ok(sources)
}

fn source(name: &str, bytes: Vec<u8>) -> Result<Source, String> {
    let text = String::from_utf8(bytes).map_err(|_| format!("cannot read {name}: it is not UTF-8; name files with manifests"))?;
    Ok(Source { name: name.to_owned(), text })
}

/// Links to directories are not followed: they may lead back.
fn below(directory: &Path, paths: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            below(&path, paths)?;
        } else if path.extension().is_some_and(|suffix| SUFFIXES.iter().any(|known| suffix == *known)) {
            paths.push(path);
        }
    }
    Ok(())
}

/// Writes each text beside its file, and only when all are there do they take their places.
pub fn write(texts: &[(&Source, String)]) -> Result<(), String> {
    let mut drafts = Vec::new();
    let result = texts.iter().try_for_each(|(source, text)| {
        let path = fs::canonicalize(&source.name);
        let written = path.and_then(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let draft = path.with_file_name(format!(".{name}.lameduck-{}", std::process::id()));
            drafts.push((draft.clone(), path.clone()));
            fs::write(&draft, text)?;
            fs::set_permissions(&draft, fs::metadata(&path)?.permissions())
        });
        written.map_err(|error| format!("cannot write {}: {error}; nothing was written", source.name))
    });
    let result = result.and_then(|()| {
        drafts.iter().try_for_each(|(draft, path)| {
            fs::rename(draft, path).map_err(|error| format!("cannot write {}: {error}; others may be written", path.display()))
        })
    });
    if result.is_err() {
        for (draft, _) in drafts {
            let _ = fs::remove_file(draft);
        }
    }
    result
}
