//! What must be done before the app exists, and may fail: templates, identity. Nothing is left half done.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::core::start::identity::{self, Identity};
use crate::core::start::template::{self, Fault};
use crate::fatal::{Fatal, exit};
use crate::plan::{Env, Plan, Template, Values};
use crate::sys::child::Setup;
use crate::sys::files::{Draft, Place};

/// Of a directory these are rendered, and lose the suffix.
const SUFFIX: &str = ".tmpl";
/// No config is larger.
const MOST_BYTES: u64 = 64 << 20;

/// All templates are rendered before one is written, and all are written before one takes its place.
pub fn render(plan: &Plan, env: &Env) -> Result<(), Fatal> {
    let values = Values::new(env, &plan.size, &plan.main().child_env);
    let mut written = Vec::new();
    for template in &plan.before.templates {
        for (from, to) in files(template)? {
            let (text, metadata) = read(&from).map_err(|error| unusable("read template", &from, &error))?;
            let rendered = template::render(&text, |name| values.get(name)).map_err(|fault| malformed(&from, &fault))?;
            written.push((to, rendered, metadata));
        }
    }
    let mut places: Vec<(&PathBuf, Place, &Vec<u8>, &fs::Metadata)> = Vec::new();
    for (to, rendered, metadata) in &written {
        let place = place(to, metadata).map_err(|error| unusable("write", to, &error))?;
        if places.iter().any(|(_, other, ..)| other.is_same(&place)) {
            return Err(unusable("write", to, &io::Error::other("two templates would be written there")));
        }
        places.push((to, place, rendered, metadata));
    }
    let mut ready = Vec::new();
    for (to, place, rendered, metadata) in &places {
        ready.push((to, draft(place, rendered, metadata).map_err(|error| unusable("write", to, &error))?));
    }
    for (to, draft) in ready {
        draft.take_its_place().map_err(|error| unusable("write", to, &error))?;
    }
    Ok(())
}

fn unusable(verb: &str, path: &Path, error: &io::Error) -> Fatal {
    Fatal { code: exit::USAGE, message: format!("cannot {verb} {}: {error}; see --template", path.display()) }
}

fn malformed(path: &Path, Fault { line, why }: &Fault) -> Fatal {
    Fatal { code: exit::BAD_FILE, message: format!("cannot render {}:{line}: {why}", path.display()) }
}

/// Source and destination of each file.
fn files(Template { from, to }: &Template) -> Result<Vec<(PathBuf, PathBuf)>, Fatal> {
    let cannot = |error: &io::Error| unusable("read template", from, error);
    if !fs::metadata(from).map_err(|error| cannot(&error))?.is_dir() {
        return Ok(vec![(from.clone(), to.clone())]);
    }
    let mut pairs = Vec::new();
    for entry in fs::read_dir(from).map_err(|error| cannot(&error))? {
        let name = entry.map_err(|error| cannot(&error))?.file_name();
        if let Some(bare) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).filter(|bare| !bare.is_empty()) {
            pairs.push((from.join(&name), to.join(bare)));
        }
    }
    if pairs.is_empty() {
        return Err(cannot(&io::Error::other(format!("the directory has no *{SUFFIX}"))));
    }
    // In an order that does not depend on the file system.
    pairs.sort();
    Ok(pairs)
}

fn read(path: &Path) -> io::Result<(Vec<u8>, fs::Metadata)> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::other("not a plain file"));
    }
    if metadata.len() > MOST_BYTES {
        return Err(io::Error::other("too large for a template"));
    }
    Ok((fs::read(path)?, metadata))
}

/// Where the file really is.
fn place(to: &Path, source: &fs::Metadata) -> io::Result<Place> {
    let place = Place::find(to)?;
    match place.present()? {
        Some(file) if !file.is_plain => Err(io::Error::other("there is something that is not a plain file")),
        Some(file) if (file.device, file.inode) == (source.dev(), source.ino()) => {
            Err(io::Error::other("that is the template itself"))
        }
        Some(_) | None => Ok(place),
    }
}

fn draft<'a>(place: &'a Place, text: &[u8], source: &fs::Metadata) -> io::Result<Draft<'a>> {
    let (mut file, draft) = place.draft()?;
    file.write_all(text)?;
    // As cp -p does it: the owner where we may, the mode in any case, but no set-user-ID.
    let _ = std::os::unix::fs::fchown(&file, Some(source.uid()), Some(source.gid()));
    file.set_permissions(Permissions::from_mode(source.mode() & 0o777))?;
    Ok(draft)
}

/// What the app's process does to itself before it becomes the app.
pub fn setup(plan: &Plan) -> Result<Setup, Fatal> {
    let before = &plan.before;
    let identity = match &before.user {
        Some(user) => Some(identify(user)?),
        None => None,
    };
    Ok(Setup {
        identity,
        directory: before.chdir.as_deref().and_then(|path| CString::new(path).ok()),
        umask: before.umask,
        nofile: before.nofile,
    })
}

fn identify(user: &str) -> Result<Identity, Fatal> {
    // Missing files are those of an image without names: numbers will do.
    let read = |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    identity::identify(user, &read("/etc/passwd"), &read("/etc/group"))
        .map_err(|why| Fatal { code: exit::USAGE, message: format!("cannot become {user:?} (--user): {why}") })
}
