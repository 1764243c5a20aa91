//! The effective configuration as text, without its secrets.

use serde_json::Value;

use super::Config;

const REDACTED: &str = "<redacted>";

/// The format of [`Config::print`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PrintFormat {
    Toml,
    Json,
}

impl Config {
    /// The effective configuration, redacted.
    #[must_use]
    pub fn print(&self, format: PrintFormat) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        match format {
            PrintFormat::Json => format!("{value:#}\n"),
            PrintFormat::Toml => toml(&value),
        }
    }
}

/// Two levels of tables with scalars and lists of strings: all that [`Config`] has.
fn toml(value: &Value) -> String {
    let mut text = String::new();
    let Some(top) = value.as_object() else { return text };
    for (key, value) in top.iter().filter(|(_, value)| !value.is_object()) {
        text.push_str(&format!("{key} = {}\n", literal(value)));
    }
    for (section, value) in top {
        let Some(keys) = value.as_object() else { continue };
        text.push_str(&format!("\n[{section}]\n"));
        for (key, value) in keys {
            text.push_str(&format!("{key} = {}\n", literal(value)));
        }
    }
    text
}

/// JSON's numbers, strings and lists are TOML's, but for a raw DEL.
fn literal(value: &Value) -> String {
    value.to_string().replace('\u{7f}', "\\u007f")
}

pub(super) const fn redact_secret(value: &str) -> &'static str {
    if value.is_empty() { "" } else { REDACTED }
}

/// A URL without its password, and without parameters that look like one. When in doubt more is hidden, not less.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return redact_secret(url).to_owned();
    };
    // The last `@`, wherever it is: a password may hold an unescaped `@`, `/` or `?`.
    let (userinfo, rest) = match rest.rfind('@') {
        Some(at) => (rest.get(..at), rest.get(at + 1..).unwrap_or_default()),
        None => (None, rest),
    };
    let mut text = format!("{scheme}://");
    if let Some(userinfo) = userinfo {
        match userinfo.split_once(':') {
            Some((user, _)) => text.extend([user, ":", REDACTED, "@"]),
            // Redis reads a lone word as the password.
            None if !scheme.starts_with("mysql") => text.extend([REDACTED, "@"]),
            None => text.extend([userinfo, "@"]),
        }
    }
    let Some((path, query)) = rest.split_once('?') else {
        text.push_str(rest);
        return text;
    };
    text.push_str(path);
    for (index, parameter) in query.split('&').enumerate() {
        text.push(if index == 0 { '?' } else { '&' });
        match parameter.split_once('=') {
            Some((name, _)) if is_secret_name(name) => text.extend([name, "=", REDACTED]),
            _ => text.push_str(parameter),
        }
    }
    text
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["pass", "pwd", "secret", "token"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_password_of_a_url_is_hidden() {
        for (url, printed) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:hunter2@r:6379/1", "redis://:<redacted>@r:6379/1"),
            ("redis://hunter2@r:6379", "redis://<redacted>@r:6379"),
            ("mysql://coupon@db:3306/coupon", "mysql://coupon@db:3306/coupon"),
            ("mysql://coupon:hunter2@db:3306/coupon", "mysql://coupon:<redacted>@db:3306/coupon"),
            ("mysql://coupon:hun/t@er:2?@db/coupon", "mysql://coupon:<redacted>@db/coupon"),
            (
                "rediss-sentinel://u:hunter2@s:26379?sentinelServiceName=main&sentinelPassword=hunter2",
                "rediss-sentinel://u:<redacted>@s:26379?sentinelServiceName=main&sentinelPassword=<redacted>",
            ),
            ("hunter2", "<redacted>"),
            ("", ""),
        ] {
            assert_eq!(redact_url(url), printed);
        }
    }
}
