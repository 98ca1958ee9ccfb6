//! What is to be done before the app exists: templates, what to wait for, the app's user.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use super::{Env, Reader, Refused, Result, Size, Source, flag};
use crate::cli::Args;
use crate::core::start::template;
use crate::core::start::url::Target;
use crate::core::time::Show;

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Template {
    pub from: PathBuf,
    pub to: PathBuf,
}

#[derive(Clone, Debug, Default)]
pub struct Before {
    pub templates: Vec<Template>,
    /// The targets, each as it was written and as it was read.
    pub wait_for: Vec<(String, Target)>,
    pub wait_timeout: Duration,
    pub user: Option<String>,
    pub chdir: Option<String>,
    pub umask: Option<u32>,
    pub nofile: Option<u64>,
}

/// What `${NAME}` stands for: a variable of the app's environment, otherwise one of lameduck's own figures.
pub struct Values<'a> {
    env: &'a Env,
    gained: &'a [(String, String)],
    own: Vec<(&'static str, String)>,
}

impl<'a> Values<'a> {
    /// `gained`: the variables that lameduck adds to the app's environment.
    pub fn new(env: &'a Env, size: &Size, gained: &'a [(String, String)]) -> Values<'a> {
        Values { env, gained, own: size.values() }
    }

    pub fn get(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let gained = self.gained.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_bytes());
        let own = || self.own.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes());
        gained.or_else(|| self.env.value(name).map(OsStrExt::as_bytes)).or_else(own).map(Cow::from)
    }
}

/// Reads all of this, and returns the main command too, with its words expanded if `--expand-args` asks for that.
pub fn before(reader: &mut Reader<'_>, args: &Args, size: &Size, gained: &[(String, String)]) -> Result<(Before, Vec<OsString>)> {
    let templates = reader.list("template", &args.before.template, "template", |text| match text.split_once(':') {
        Some((from, to)) if !from.is_empty() && !to.is_empty() => Ok(Template { from: from.into(), to: to.into() }),
        _ => Err("not SRC:DST"),
    })?;
    let command = if flag(reader, "expand-args", args.before.expand_args)? {
        expanded(args, &Values::new(reader.env, size, gained))?
    } else {
        args.app.command.clone()
    };
    let wait_for =
        reader.list("wait-for", &args.before.wait_for, "what to wait for", |text| Ok((text.to_owned(), Target::parse(text)?)))?;
    let (wait_timeout, source) =
        reader.duration("wait-timeout", &args.before.wait_timeout)?.unwrap_or((Duration::from_secs(60), Source::Default("")));
    if !wait_for.is_empty() || source != Source::Default("") {
        reader.show("wait-timeout", Show(wait_timeout), source);
    }
    let umask = match reader.given("umask", args.before.umask.as_deref())? {
        Some(given) => {
            let octal = given.text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
            let mask = u32::from_str_radix(&given.text, 8).ok().filter(|mask| octal && *mask <= 0o777);
            reader.show("umask", &given.text, given.source.clone());
            Some(mask.ok_or_else(|| given.cannot("umask", "not an octal mask (try 022 or 0027)"))?)
        }
        None => None,
    };
    let nofile = reader.number::<u64>("nofile", &args.before.nofile)?;
    if nofile == Some(0) {
        return Err(Refused::Usage("cannot run with 0 open files: --nofile is 0; give 3 or more".to_owned()));
    }
    let user = text(reader, "user", args.before.user.as_deref())?;
    let chdir = text(reader, "chdir", args.before.chdir.as_deref())?;
    Ok((Before { templates, wait_for, wait_timeout, user, chdir, umask, nofile }, command))
}

fn text(reader: &mut Reader<'_>, name: &'static str, typed: Option<&str>) -> Result<Option<String>> {
    let Some(given) = reader.given(name, typed)? else { return Ok(None) };
    if given.text.is_empty() || given.text.contains('\0') {
        return Err(given.cannot(name, "it is empty"));
    }
    reader.show(name, &given.text, given.source);
    Ok(Some(given.text))
}

fn expanded(args: &Args, values: &Values<'_>) -> Result<Vec<OsString>> {
    let expand = |(index, word): (usize, &OsString)| {
        let bytes = template::render(word.as_bytes(), |name| values.get(name)).map_err(|fault| {
            Refused::Usage(format!("cannot expand word {} of the command, {word:?}: {}", index + 1, fault.why))
        })?;
        Ok(OsString::from_vec(bytes))
    };
    args.app.command.iter().enumerate().map(expand).collect()
}
