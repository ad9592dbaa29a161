//! Where a bootstrap token comes from: the command line, a file, or standard input.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::Path;

use edgeward_identity::Secret;
use edgeward_wire::token::{BootstrapToken, MAX_TOKEN_BYTES, TokenError};

use super::enrol::Arguments;
use super::{Failure, Screen};

/// Names standard input.
const STANDARD_INPUT: &str = "-";

pub(super) fn read(arguments: &Arguments, screen: Screen) -> Result<BootstrapToken, Failure> {
    let text = match (&arguments.token, &arguments.token_file) {
        (Some(token), _) => Secret::new(token.clone()),
        (None, Some(path)) if path.as_os_str() != STANDARD_INPUT => {
            from(path, || File::open(path))?
        }
        _ => {
            if std::io::stdin().is_terminal() {
                screen.note("paste the token (edgeward token create), then Ctrl-D:");
            }
            from(Path::new("standard input"), || Ok(std::io::stdin()))?
        }
    };
    Ok(BootstrapToken::parse(text.expose())?)
}

fn from<R: Read>(
    path: &Path,
    open: impl FnOnce() -> std::io::Result<R>,
) -> Result<Secret<String>, Failure> {
    // White space at the end is no part of the token: leave room for it.
    let limit = u64::try_from(MAX_TOKEN_BYTES).unwrap_or(u64::MAX) + 2;
    let mut text = String::new();
    open()
        .and_then(|source| source.take(limit).read_to_string(&mut text))
        .map_err(|source| Failure::TokenFile {
            path: path.to_owned(),
            source,
        })?;
    match text.trim().is_empty() {
        true => Err(TokenError::Prefix.into()),
        false => Ok(Secret::new(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(token_file: &Path) -> Arguments {
        Arguments {
            token_file: Some(token_file.to_owned()),
            ..Arguments::default()
        }
    }

    #[test]
    fn a_file_that_holds_no_token_is_refused_with_the_reason() {
        let screen = Screen::new(Default::default(), Default::default());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let missing = read(&arguments(&path), screen).unwrap_err();
        assert!(matches!(missing, Failure::TokenFile { .. }));
        for (text, error) in [
            ("", TokenError::Prefix),
            ("\n", TokenError::Prefix),
            ("password", TokenError::Prefix),
            ("edgeward1.AAAA", TokenError::Layout),
        ] {
            std::fs::write(&path, text).unwrap();
            let refused = read(&arguments(&path), screen).unwrap_err();
            assert!(
                matches!(&refused, Failure::Token(found) if *found == error),
                "{refused:?}"
            );
        }
        std::fs::write(&path, "x".repeat(MAX_TOKEN_BYTES * 2)).unwrap();
        let long = read(&arguments(&path), screen).unwrap_err();
        assert!(matches!(long, Failure::Token(TokenError::TooLong)));
    }
}
