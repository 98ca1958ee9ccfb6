//! What must not be seen: values of variables whose name looks like a secret's, and credentials in URLs.

use std::borrow::Cow;

const MASK: &str = "***";
/// A shorter value is masked only where it stands alone: it is part of too many words.
const SHORT: usize = 6;

#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Each once, in no order.
    values: Vec<String>,
}

/// A word of a command, or a part of one that a shell would read.
struct Part<'a> {
    word: &'a str,
    text: &'a str,
}

/// What the next word is.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Any,
    Secret,
    /// `user:password`
    Credentials,
}

/// Whose options these are.
#[derive(Clone, Copy, PartialEq)]
enum Client {
    Any,
    Curl,
    /// Of `-pSECRET`.
    Mysql,
}

impl Client {
    /// None: no client that we know.
    fn of(word: &str) -> Option<Client> {
        let name = word.rsplit('/').next().unwrap_or(word);
        let is_mysql = ["mysql", "mariadb", "sshpass", "mycli"].iter().any(|client| name.starts_with(client)) && name != "mysqld";
        match name {
            "curl" => Some(Client::Curl),
            _ => is_mysql.then_some(Client::Mysql),
        }
    }

    /// Whether the option's value is `user:password`. Elsewhere that of --user, as of our own, may be `user:group`.
    fn takes_credentials(self, option: &str) -> bool {
        let is_short = option == "-u" || option.starts_with("-u") && option.contains(':');
        is_short || self == Client::Curl && matches!(option, "-U" | "--user" | "--proxy-user")
    }
}

impl Secrets {
    /// Of an environment, and of the words of a command: `env TOKEN=x app`, `--password=x`, `--password x`, `mysql -px`, `-u user:x`,
    /// `-H "Authorization: Bearer x"`.
    pub fn new<'a>(variables: impl Iterator<Item = (&'a str, &'a str)>, words: impl Iterator<Item = &'a str>) -> Secrets {
        let mut secrets = Secrets::default();
        variables.filter(|(name, _)| is_secret(name)).for_each(|(_, value)| secrets.learn(value));
        let words: Vec<&str> = words.collect();
        // As the app gets them, blanks and all.
        secrets.learn_parts(words.iter().map(|word| Part { word, text: word }));
        // And as a shell would read them.
        let split =
            |word: &'a str| word.split([' ', '\t', '\n', ';']).map(move |text| Part { word, text: text.trim_matches(QUOTES) });
        secrets.learn_parts(words.iter().flat_map(|word| split(word)));
        secrets.values.sort_unstable();
        secrets.values.dedup();
        secrets
    }

    fn learn_parts<'a>(&mut self, parts: impl Iterator<Item = Part<'a>>) {
        let mut next = Next::Any;
        let mut client = Client::Any;
        for part in parts.filter(|part| !part.text.is_empty()) {
            let Part { word, text } = part;
            client = Client::of(text).unwrap_or(client);
            match std::mem::replace(&mut next, Next::Any) {
                Next::Secret if is_scheme(text) => next = Next::Secret,
                Next::Secret if !text.starts_with('-') => self.learn_here(word, text),
                Next::Credentials => self.learn_password(word, text),
                Next::Any | Next::Secret => next = self.learn_part(part, client),
            }
        }
    }

    /// Says what the next one is.
    fn learn_part(&mut self, Part { word, text }: Part, client: Client) -> Next {
        if let Some((name, value)) = text.split_once('=') {
            // A script's, and read as the shell reads it later.
            let is_script = word == text && (name.contains(char::is_whitespace) || value.starts_with(QUOTES));
            if !is_script && is_secret(name) {
                let value = value.trim_matches(QUOTES);
                if is_scheme(value) {
                    return Next::Secret;
                }
                self.learn_here(word, value);
                // 'NAME=a b'
                let whole = in_quotes(word, name).and_then(|all| all.split_once('=')).map(|(_, value)| value);
                whole.into_iter().for_each(|all| self.learn(all));
                return Next::Any;
            }
            if !is_script && client.takes_credentials(name) {
                self.learn_password(word, value.trim_matches(QUOTES));
                return Next::Any;
            }
            // --headers=authorization=…
            if !is_script && value.contains('=') {
                return self.learn_part(Part { word, text: value }, client);
            }
        }
        if is_scheme(text) && text.eq_ignore_ascii_case("bearer") {
            return Next::Secret;
        }
        if let Some((name, value)) =
            text.split_once(':').filter(|(name, _)| is_secret(name) && !name.contains(char::is_whitespace))
        {
            let is_header = name.eq_ignore_ascii_case("authorization") || name.contains('-');
            match value {
                "" => return Next::Secret,
                scheme if is_scheme(scheme) => return Next::Secret,
                value if is_header && !text.starts_with('-') => self.learn_here(word, value.trim_start()),
                _ => {}
            }
        }
        if client.takes_credentials(text) {
            // Of curl's -uNAME:PASSWORD the option is a part.
            let Some(value) = text.strip_prefix("-u").filter(|value| value.contains(':')) else { return Next::Credentials };
            self.learn_password(word, value);
        } else if let Some(value) = text.strip_prefix("-p").filter(|value| client == Client::Mysql || is_like_a_password(value)) {
            self.learn_here(word, value);
        } else if text.starts_with('-') && !text.contains('=') && is_secret(text) {
            return Next::Secret;
        }
        Next::Any
    }

    /// A part of a word, and all that stands between quotes where it begins behind one.
    fn learn_here(&mut self, word: &str, text: &str) {
        self.learn(text);
        in_quotes(word, text).into_iter().for_each(|all| self.learn(all));
    }

    /// Of `user:password`. In `user:group` both are the same, or the group is a number.
    fn learn_password(&mut self, word: &str, text: &str) {
        if let Some((user, password)) = text.split_once(':')
            && user != password
            && password != "nogroup"
            && !password.bytes().all(|byte| byte.is_ascii_digit())
        {
            self.learn_here(word, password);
        }
    }

    fn learn(&mut self, value: &str) {
        // Nobody's secret, and part of every other line.
        let trivial = matches!(value, "true" | "false" | "yes" | "no" | "on" | "off" | "none" | "null");
        if value.is_empty() || trivial || value.len() <= 3 && value.bytes().all(|byte| byte.is_ascii_digit()) {
            return;
        }
        if let Some((_, credentials)) = value.split_once(' ').filter(|(scheme, _)| is_scheme(scheme)) {
            self.learn(credentials);
        }
        // As it is shown between quotes.
        let quoted = format!("{value:?}");
        let inside = &quoted[1..quoted.len() - 1];
        if inside != value {
            self.values.push(inside.to_owned());
        }
        self.values.push(value.to_owned());
    }

    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let masked = match self.without_values(text) {
            Some(without) => Cow::Owned(without),
            None => Cow::Borrowed(text),
        };
        match without_credentials(&masked) {
            Some(without) => Cow::Owned(without),
            None => masked,
        }
    }

    /// None: none is there. All at once: one that was masked first could leave a part of another that overlaps it.
    fn without_values(&self, text: &str) -> Option<String> {
        let mut places: Vec<_> = self.values.iter().flat_map(|value| places(text, value)).collect();
        places.sort_unstable();
        let mut masked = None::<String>;
        let mut done = 0;
        for (start, end) in places {
            if masked.is_none() || start >= done {
                let masked = masked.get_or_insert_default();
                masked.push_str(&text[done..start]);
                masked.push_str(MASK);
            }
            done = done.max(end);
        }
        masked.map(|masked| masked + &text[done..])
    }
}

const QUOTES: [char; 2] = ['"', '\''];

/// All that stands between quotes, where `part` of `word` begins just behind one.
fn in_quotes<'a>(word: &'a str, part: &str) -> Option<&'a str> {
    let start = part.as_ptr().addr() - word.as_ptr().addr();
    let quote = word[..start].chars().next_back().filter(|c| QUOTES.contains(c))?;
    word[start..].split(quote).next()
}

fn is_secret(name: &str) -> bool {
    const ANYWHERE: [&str; 9] = ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "KEY", "CREDENTIAL", "JWT", "WEBHOOK"];
    let name = name.to_ascii_uppercase();
    let says_so = ANYWHERE.iter().any(|word| name.contains(word));
    // AUTHOR and AUTHORITY are no secrets.
    let is_auth = |(at, _): (usize, &str)| !name[at..].starts_with("AUTHOR") || name[at..].starts_with("AUTHORIZATION");
    // PWD and OLDPWD are directories.
    let short =
        name.split(['_', '-']).any(|part| matches!(part, "PASS" | "PWD" | "PAT" | "SALT")) && !matches!(&*name, "PWD" | "PAT");
    (says_so || short || name.match_indices("AUTH").any(is_auth)) && !name.starts_with("LAMEDUCK_")
}

/// What stands before the secret in an Authorization header.
fn is_scheme(text: &str) -> bool {
    ["bearer", "basic", "token", "digest", "apikey"].iter().any(|scheme| text.eq_ignore_ascii_case(scheme))
}

/// Whether the value in `-pVALUE` of any program is more likely a password than a port, a path, or the rest of an option's name.
fn is_like_a_password(value: &str) -> bool {
    let is_port = value.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b':' | b'-' | b',' | b'/'));
    let is_setting =
        value.split_once('=').is_some_and(|(name, _)| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'.' | b'-')));
    if is_port || is_setting || value.contains(['/', ':']) {
        return false;
    }
    let is_name = value.starts_with(|c: char| c.is_ascii_lowercase())
        && value.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-');
    let has_digit = value.bytes().any(|byte| byte.is_ascii_digit());
    let has_sign =
        value.bytes().any(|byte| byte.is_ascii_uppercase() || byte.is_ascii_punctuation() && !matches!(byte, b'.' | b'-' | b'_'));
    !is_name && (has_sign || has_digit && value.len() >= SHORT)
}

/// From where to where it stands.
fn places<'a>(text: &'a str, value: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    let alone = |start: usize, end: usize| {
        let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_part(text[..start].chars().next_back()) && !is_part(text[end..].chars().next())
    };
    let step = value.chars().next().map_or(1, char::len_utf8);
    let long = value.chars().count() >= SHORT;
    let mut from = 0;
    let all = std::iter::from_fn(move || {
        let start = from + text[from..].find(value)?;
        // It may overlap itself.
        from = start + step;
        Some((start, start + value.len()))
    });
    all.filter(move |&(start, end)| long || alone(start, end))
}

/// `scheme://user:password@host`: all before the @. None: there is nothing of the kind.
fn without_credentials(text: &str) -> Option<String> {
    let mut masked = None::<String>;
    let mut done = 0;
    for (at, separator) in text.match_indices("://") {
        let start = at + separator.len();
        let rest = &text[start..];
        let end =
            rest.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | ',' | ';')).unwrap_or(rest.len());
        let Some(sign) = rest[..end].rfind('@').filter(|_| start >= done) else { continue };
        let masked = masked.get_or_insert_default();
        masked.push_str(&text[done..start]);
        masked.push_str(MASK);
        done = start + sign;
    }
    masked.map(|masked| masked + &text[done..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(variables: &[(&str, &str)], words: &[&str], text: &str) -> String {
        Secrets::new(variables.iter().copied(), words.iter().copied()).mask(text).into_owned()
    }

    #[test]
    fn values_of_secret_variables() {
        let variables = [
            ("DB_PASSWORD", "hunter2!"),
            ("API_TOKEN", "abc"),
            ("MYSQL_PWD", "pa\"ss word"),
            ("PWD", "/srv/app"),
            ("SHORTKEY", "x"),
            ("LAMEDUCK_TOKEN", "visible"),
            ("HOME", "/root"),
            ("EMPTY_SECRET", ""),
        ];
        for (text, expected) in [
            ("connect with hunter2!", "connect with ***"),
            ("hunter2!hunter2!", "******"),
            ("--token=abc abcd xabc", "--token=*** abcd xabc"),
            ("pa\"ss word", "***"),
            ("\"pa\\\"ss word\"", "\"***\""),
            ("/srv/app /root visible", "/srv/app /root visible"),
            ("x=xx x", "***=xx ***"),
        ] {
            assert_eq!(masked(&variables, &[], text), expected);
        }
    }

    #[test]
    fn secrets_in_the_command() {
        let words = [
            "env",
            "TOKEN=abcdef",
            "app",
            "--password",
            "swordfish",
            "--api-key=k-12345",
            "--verbose",
            "sh -c 'X_SECRET=qwertz run'",
        ];
        let line = words.join(" ");
        assert_eq!(masked(&[], &words, &line), "env TOKEN=*** app --password *** --api-key=*** --verbose sh -c 'X_SECRET=***'");
    }

    #[test]
    fn secrets_that_no_name_announces() {
        for (words, expected) in [
            (&["curl", "-H", "Authorization: Bearer abc.def"][..], "curl -H Authorization: ***"),
            (&["curl", "-HAuthorization:Basic dTpw"], "curl -HAuthorization:Basic ***"),
            (&["sh", "-c", "curl -H 'Authorization: Bearer abc.def' x"], "sh -c curl -H 'Authorization: Bearer ***' x"),
            (&["sh", "-c", "curl -H \"X-Api-Key: k-1\" x"], "sh -c curl -H \"X-Api-Key: ***\" x"),
            (&["x", "--headers=authorization=Bearer abc.def"], "x --headers=authorization=***"),
            (&["x", "bearer", "abc.def"], "x bearer ***"),
            (&["mysqldump", "-psecret", "db"], "mysqldump -p*** db"),
            (&["sh", "-c", "/usr/bin/mariadb -uroot -psecret"], "sh -c /usr/bin/mariadb -uroot -p***"),
            (&["client", "-pSECRET", "-phunter2"], "client -p*** -p***"),
            (
                &["x", "-p8080", "-p8080:80", "-pthread", "-p/var/run", "-port=80", "-pidFile", "-p2p", "-p", "Name"],
                "x -p8080 -p8080:80 -pthread -p/var/run -port=80 -pidFile -p2p -p Name",
            ),
            (&["mysqld", "-p3306", "-pname"], "mysqld -p3306 -pname"),
            (&["curl", "-u", "me:open.sesame", "http://x"], "curl -u me:*** http://x"),
            (&["--user", "app:staff", "curl", "--user", "me:x y"], "--user app:staff curl --user me:***"),
            (&["curl", "-ume:open.sesame", "--proxy-user=me:other.one"], "curl -ume:*** --proxy-user=me:***"),
            (
                &["run", "-u", "www-data:www-data", "-u", "1000:1000", "-u", "nobody:nogroup", "-u", "me"],
                "run -u www-data:www-data -u 1000:1000 -u nobody:nogroup -u me",
            ),
        ] {
            assert_eq!(masked(&[], words, &words.join(" ")), expected);
        }
    }

    #[test]
    fn names_of_secrets() {
        for name in ["GITHUB_PAT", "jwt", "APP_JWT_PRIVATE", "PGAUTH", "HTTP_AUTHORIZATION", "PASSWORD_SALT", "SLACK_WEBHOOK_URL"]
        {
            assert!(is_secret(name), "{name}");
        }
        for name in ["PATH", "PAT", "AUTHOR", "GIT_AUTHOR_NAME", "AUTHORITY", "BASALT_DIR", "PATTERN", "OLDPWD", "HOOK"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn secrets_with_blanks_in_a_script() {
        for (script, expected) in [
            ("A_SECRET='open sesame' run", "A_SECRET='***' run"),
            ("env \"A_SECRET=open sesame\" run", "env \"A_SECRET=***\" run"),
            ("run --password \"open sesame\" --x", "run --password \"***\" --x"),
            ("run --password='open sesame'", "run --password='***'"),
            // All of it may be the value.
            ("bash -c 'A_SECRET=sesame run; x'", "bash -c 'A_SECRET=***'"),
            ("A_SECRET='sesame never closed", "A_SECRET='***"),
        ] {
            assert_eq!(masked(&[], &["sh", "-c", script], script), expected);
        }
        assert_eq!(masked(&[], &["bash -c 'A_SECRET=sesame run'"], "sesame"), "***");
    }

    #[test]
    fn secrets_that_overlap() {
        let variables = [("A_KEY", "abcdefgh"), ("B_KEY", "ghijklm"), ("C_KEY", "xyxyxy")];
        assert_eq!(masked(&variables, &[], "<abcdefghijklm>"), "<***>");
        assert_eq!(masked(&variables, &[], "<xyxyxyxy>"), "<***>", "with itself");
        assert_eq!(masked(&variables, &[], "<abcdefgh abcdefgh>"), "<*** ***>");
    }

    /// A word is what the app gets, blanks and all; only a shell makes several of it.
    #[test]
    fn a_secret_of_several_words() {
        let words = ["app", "--password=correct horse battery", "--token", "one two;three", "--verbose"];
        assert_eq!(masked(&[], &words, &words.join(" ")), "app --password=*** --token *** --verbose");
        assert_eq!(masked(&[], &["x", "--key=a\nbcdefg"], "cannot expand \"--key=a\\nbcdefg\""), "cannot expand \"--key=***\"");
    }

    #[test]
    fn credentials_in_urls() {
        for (text, expected) in [
            ("postgres://u:p@db/x and http://a@b:1/", "postgres://***@db/x and http://***@b:1/"),
            ("http://host/path@x", "http://host/path@x"),
            ("amqp://u:p@ss@host", "amqp://***@host"),
            ("http://host", "http://host"),
        ] {
            assert_eq!(masked(&[], &[], text), expected);
        }
    }

    #[test]
    fn one_that_is_part_of_another() {
        assert_eq!(masked(&[("A_KEY", "secret"), ("B_KEY", "secret-longer")], &[], "secret-longer secret"), "*** ***");
    }
}
