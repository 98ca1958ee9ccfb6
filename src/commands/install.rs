//! `lameduck install PATH`: this binary, copied to where another container finds it. An image `FROM scratch` has no `cp`.

use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::fatal::{Fatal, exit};
use crate::sys::files::Place;

/// What runs, whatever its name is.
const OURSELVES: &str = "/proc/self/exe";

/// Copies our own binary to the one path in `words`, or into it if it is a directory. Written beside its place and then renamed: what stands
/// there is whole at any time, and is replaced.
pub fn install(words: &[OsString]) -> Result<u8, Fatal> {
    let [path] = words else {
        let message = "cannot install lameduck: it needs one path, a file or a directory; write lameduck install PATH".to_owned();
        return Err(Fatal { code: exit::USAGE, message });
    };
    let path = Path::new(path);
    let to: PathBuf = if path.is_dir() { path.join("lameduck") } else { path.to_owned() };
    copy(&to).map(|()| 0).map_err(|error| Fatal {
        code: exit::BAD_FILE,
        message: format!(
            "cannot install lameduck as {}: {error}; is a volume mounted there that this user may write to?",
            to.display()
        ),
    })
}

fn copy(to: &Path) -> io::Result<()> {
    let place = Place::find(to)?;
    if place.present()?.is_some_and(|present| !present.is_plain) {
        return Err(io::Error::other("what stands there is not a plain file"));
    }
    let mut ours = File::open(OURSELVES)?;
    let (mut file, draft) = place.draft()?;
    io::copy(&mut ours, &mut file)?;
    // Whoever runs it may be another user.
    file.set_permissions(Permissions::from_mode(0o755))?;
    drop(file);
    draft.take_its_place()
}
