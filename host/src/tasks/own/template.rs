//! Texts with `{field}` in them.

/// A text with places for fields.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

impl Template {
    /// Reads a text in which `{name}` stands for a field, and `{{` and `}}` for braces.
    ///
    /// # Errors
    /// Braces that do not fit, in a clause.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let behind = &rest[at + 1..];
            if let Some(behind) = behind.strip_prefix(brace) {
                plain.push_str(brace);
                rest = behind;
                continue;
            }
            let name = match behind.find(['{', '}']) {
                Some(end) if brace == "{" && behind[end..].starts_with('}') => &behind[..end],
                _ => {
                    return Err(format!(
                        "a `{brace}` stands alone in {text:?}; a field is written {{name}}, a brace {brace}{brace}"
                    ));
                }
            };
            if name.trim().is_empty() {
                return Err(format!(
                    "a field without a name in {text:?}; write {{name}}, or {{{{}}}} for braces"
                ));
            }
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Field(name.trim().to_owned()));
            rest = &behind[name.len() + 1..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The field that this is and nothing else.
    pub(super) fn field(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Piece::Field(name)] => Some(name),
            _ => None,
        }
    }

    /// The text with its fields filled in; what they hold is not read again.
    pub(super) fn fill(&self, field: impl Fn(&str) -> Result<String, String>) -> Result<String, String> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Field(name) => out.push_str(&field(name)?),
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_and_braces() {
        let fill = |text: &str| Template::parse(text)?.fill(|name| Ok(format!("<{name}>")));
        for (text, filled) in [
            ("", ""),
            ("plain", "plain"),
            ("{a}", "<a>"),
            ("Q: {a b}\nA: {c.d}", "Q: <a b>\nA: <c.d>"),
            ("{{a}} {{{a}}} {{", "{a} {<a>} {"),
            ("{ a }{b}é", "<a><b>é"),
        ] {
            assert_eq!(fill(text).unwrap(), filled);
        }
        for text in ["{", "}", "a } b", "{a", "{a{b}}", "{}", "{a}}", "{ }"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
        assert_eq!(Template::parse("{a}").unwrap().field(), Some("a"));
        assert_eq!(Template::parse("{a} ").unwrap().field(), None);
    }

    proptest! {
        #[test]
        fn what_a_field_holds_is_not_read_again_and_nothing_panics(text in "[{}ab é]{0,12}", value in "[{}a]{0,5}") {
            if let Ok(template) = Template::parse(&text) {
                let filled = template.fill(|_| Ok(value.clone())).unwrap();
                let fields = template.0.iter().filter(|p| matches!(p, Piece::Field(_))).count();
                prop_assert!(filled.len() >= fields * value.len());
            }
            let escaped = text.replace('{', "{{").replace('}', "}}");
            prop_assert_eq!(Template::parse(&escaped).unwrap().fill(|_| Err(String::new())).unwrap(), text);
        }
    }
}
