//! What a shell script starts besides what it becomes.

const SHELLS: [&str; 6] = ["ash", "bash", "dash", "ksh", "sh", "zsh"];

/// The text behind `-c`, where these words are a shell's.
pub fn inline<S: AsRef<str>>(words: &[S]) -> Option<&str> {
    let program = words.first()?.as_ref().rsplit('/').next()?;
    if !SHELLS.contains(&program) {
        return None;
    }
    let options = words[1..].iter().take_while(|word| word.as_ref().starts_with('-')).count();
    // `-c`, or letters that end with it, as in `-ec`.
    let has_script = words[1..=options].iter().any(|word| !word.as_ref().starts_with("--") && word.as_ref().ends_with('c'));
    words.get(1 + options).filter(|_| has_script).map(AsRef::as_ref)
}

/// Whether a file that begins so is a shell's script.
pub fn is_shell_script(text: &str) -> bool {
    let Some(line) = text.strip_prefix("#!").and_then(|rest| rest.lines().next()) else { return false };
    line.split_whitespace().any(|word| SHELLS.contains(&word.rsplit('/').next().unwrap_or_default()))
}

/// The first command that a script sends into the background by `&` before it does something else.
pub fn background(script: &str) -> Option<&str> {
    let bytes = script.as_bytes();
    let is_single = |at: usize| {
        let before = at.checked_sub(1).map(|at| bytes[at]);
        let after = bytes.get(at + 1);
        bytes[at] == b'&' && !matches!(before, Some(b'&' | b'>' | b'<' | b'|')) && !matches!(after, Some(b'&' | b'>'))
    };
    let command = |at: usize| script[..at].rsplit(['\n', ';', '&']).next().unwrap_or_default().trim();
    let at = (0..bytes.len()).filter(|at| is_single(*at)).find(|at| !command(*at).starts_with('#'))?;
    let does_more = script[at + 1..].lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    Some(command(at)).filter(|command| does_more && !command.is_empty())
}

/// What `--with` would do for a script that runs several programs.
pub fn hint(script: &str) -> Option<String> {
    let command = background(script)?;
    Some(format!(
        "the command is a shell script that starts {command:?} in the background: nobody sees its end, and it is not stopped in order; --with '{command}' makes it a companion"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_on_the_command_line() {
        assert_eq!(inline(&["sh", "-c", "a & b"]), Some("a & b"));
        assert_eq!(inline(&["/bin/bash", "-e", "-xc", "a", "b"]), Some("a"));
        assert_eq!(inline(&["bash", "--norc", "/start.sh"]), None);
        assert_eq!(inline(&["nginx", "-c", "/x"]), None);
        assert!(
            is_shell_script("#!/usr/bin/env bash\nx")
                && is_shell_script("#! /bin/sh -e\n")
                && !is_shell_script("#!/usr/bin/python3\n")
        );
        assert!(!is_shell_script("\u{7f}ELF"));
    }

    #[test]
    fn what_runs_in_the_background() {
        assert_eq!(background("php-fpm & nginx & wait"), Some("php-fpm"));
        assert_eq!(background("#!/bin/sh\nset -e\nphp-fpm -F &\nexec nginx\n"), Some("php-fpm -F"));
        assert_eq!(background("a && b 2>&1 || c >& d &> e; exec f"), None);
        assert_eq!(background("server &\n# and no more\n"), None, "nothing follows");
        assert_eq!(background("# a & b\nexec c"), None);
    }
}
