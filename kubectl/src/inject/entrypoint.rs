//! What an image runs: by its config, or by what somebody typed. Nobody guesses.

use std::collections::HashMap;

use serde_json::Value;

/// By the image's name.
pub type Images = HashMap<String, Entrypoint>;

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Entrypoint {
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
}

/// Programs that know images, and how they are asked: the answer is JSON.
pub fn questions(image: &str) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    vec![
        words(&["podman", "image", "inspect", image]),
        words(&["docker", "image", "inspect", image]),
        words(&["skopeo", "--command-timeout", "10s", "inspect", "--config", &format!("docker://{image}")]),
    ]
}

/// Reads such an answer. None: it says nothing of what runs.
pub fn answered(answer: &[u8]) -> Option<Entrypoint> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let image = answer.get(0).unwrap_or(&answer);
    let config = image.get("Config").or(image.get("config"))?;
    let words = |name: &str| -> Vec<String> {
        let all = config.get(name).and_then(Value::as_array);
        all.map(|all| all.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect()).unwrap_or_default()
    };
    let found = Entrypoint { entrypoint: words("Entrypoint"), cmd: words("Cmd") };
    if found == Entrypoint::default() { None } else { Some(found) }
}

/// Words as they are typed: a JSON list, or separated by blanks, with quotes.
pub fn typed(text: &str) -> Result<Vec<String>, &'static str> {
    let words = if text.trim_start().starts_with('[') {
        serde_json::from_str(text).map_err(|_| "not a JSON list of words")?
    } else {
        split(text)?
    };
    if words.is_empty() { Err("no words") } else { Ok(words) }
}

fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words: Vec<String> = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(open), _) if open == c => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    if quote.is_some() { Err("a quote is open") } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_words() {
        assert_eq!(typed("sh -c 'a b' \"\"").unwrap(), ["sh", "-c", "a b", ""]);
        assert_eq!(typed("[\"a b\", \"c\"]").unwrap(), ["a b", "c"]);
        for text in ["", " ", "[]", "[1]", "'a"] {
            assert!(typed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn answers_of_podman_docker_and_skopeo() {
        let expected = Entrypoint { entrypoint: vec!["/e".to_owned()], cmd: vec!["c".to_owned()] };
        let podman = br#"[{"Id": "x", "Config": {"Entrypoint": ["/e"], "Cmd": ["c"]}}]"#;
        let skopeo = br#"{"architecture": "amd64", "config": {"Entrypoint": ["/e"], "Cmd": ["c"]}}"#;
        assert_eq!((answered(podman), answered(skopeo)), (Some(expected.clone()), Some(expected)));
        let none = br#"[{"Config": {"Entrypoint": null, "Cmd": null}}]"#;
        assert_eq!((answered(none), answered(b"[]"), answered(b"x")), (None, None, None));
    }
}
