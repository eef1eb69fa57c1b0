//! Reading our own statements token by token: the words, names and literals that every statement is made of.
//!
//! A function that reads something returns the first thing that stops it; what can be reported without stopping goes to
//! [`Cursor::report`], so that a statement's errors come together.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use crate::ast::{Name, Names, fold};
use crate::codes::{E0102, E0204};
use crate::diagnostic::Diagnostic;
use crate::span::{Source, Span};

/// What a reading function gives: the node, or what stopped it.
pub(super) type Parsed<T> = Result<T, Diagnostic>;

/// A place in the tokens of one statement (no white space, no comments, no semicolon).
pub(super) struct Cursor<'a> {
    source: &'a Source<'a>,
    tokens: &'a [TokenWithSpan],
    at: usize,
    /// Where the statement ends: what is expected there and missing is shown here.
    end: Span,
    found: Vec<Diagnostic>,
}

impl<'a> Cursor<'a> {
    /// A cursor before the first token of a statement of `source`.
    pub(super) fn new(source: &'a Source<'a>, tokens: &'a [TokenWithSpan]) -> Cursor<'a> {
        let end = tokens.last().map_or(Span::NONE, |last| Span::from(last.span).after());
        Cursor { source, tokens, at: 0, end, found: Vec::new() }
    }

    /// What was reported without stopping.
    pub(super) fn into_found(self) -> Vec<Diagnostic> {
        self.found
    }

    /// Reports an error and goes on.
    pub(super) fn report(&mut self, diagnostic: Diagnostic) {
        self.found.push(diagnostic);
    }

    /// Takes back what was reported last.
    pub(super) fn take_report(&mut self) -> Option<Diagnostic> {
        self.found.pop()
    }

    /// All tokens of the statement.
    pub(super) fn tokens(&self) -> &'a [TokenWithSpan] {
        self.tokens
    }

    /// The index of the next token.
    pub(super) fn index(&self) -> usize {
        self.at
    }

    /// Goes to the token of this index.
    pub(super) fn seek(&mut self, index: usize) {
        self.at = index.min(self.tokens.len());
    }

    /// The next token, if there is one.
    pub(super) fn peek(&self) -> Option<&'a Token> {
        self.peek_at(0)
    }

    /// The token `ahead` of the next.
    pub(super) fn peek_at(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + ahead).map(|token| &token.token)
    }

    /// Where the next token stands; behind the last token at the end.
    pub(super) fn span(&self) -> Span {
        self.span_of(self.at)
    }

    /// Where the token last read stands.
    pub(super) fn last_span(&self) -> Span {
        self.at.checked_sub(1).map_or(Span::NONE, |last| self.span_of(last))
    }

    /// Where a token stands.
    pub(super) fn span_of(&self, index: usize) -> Span {
        self.tokens.get(index).map_or(self.end, |token| token.span.into())
    }

    /// From the token of an index to the token last read.
    pub(super) fn span_from(&self, index: usize) -> Span {
        if self.at > index { self.span_of(index).to(self.last_span()) } else { self.span_of(index) }
    }

    /// Reads any token.
    pub(super) fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len());
    }

    /// Whether nothing is left.
    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The next token in upper case, if it is an unquoted word.
    pub(super) fn word(&self) -> Option<String> {
        match self.peek() {
            Some(Token::Word(Word { value, quote_style: None, .. })) => Some(value.to_ascii_uppercase()),
            _ => None,
        }
    }

    /// Whether the next words are these, without reading them.
    pub(super) fn sees(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(ahead, word)| self.peek_at(ahead).is_some_and(|token| is_word(token, word)))
    }

    /// Reads these words if they are next.
    pub(super) fn eats(&mut self, words: &[&str]) -> bool {
        let seen = self.sees(words);
        if seen {
            self.at += words.len();
        }
        seen
    }

    /// Reads one word if it is next.
    pub(super) fn eat(&mut self, word: &str) -> bool {
        self.eats(&[word])
    }

    /// Reads these words, which must be next.
    pub(super) fn expect_words(&mut self, words: &[&str]) -> Parsed<Span> {
        let start = self.at;
        for word in words {
            if !self.eat(word) {
                return Err(self.unexpected(word));
            }
        }
        Ok(self.span_from(start))
    }

    /// Reads a token if it is next.
    pub(super) fn eat_token(&mut self, token: &Token) -> bool {
        let seen = self.peek() == Some(token);
        if seen {
            self.at += 1;
        }
        seen
    }

    /// Reads a token, which must be next.
    pub(super) fn expect_token(&mut self, token: &Token) -> Parsed<Span> {
        if self.eat_token(token) { Ok(self.last_span()) } else { Err(self.unexpected(&format!("\"{token}\""))) }
    }

    /// Checks that nothing is left.
    pub(super) fn expect_end(&self) -> Parsed<()> {
        if self.is_at_end() { Ok(()) } else { Err(self.unexpected("the end of the statement")) }
    }

    /// Says that something else was expected where the cursor stands.
    pub(super) fn unexpected(&self, expected: &str) -> Diagnostic {
        Diagnostic::error(E0102, self.span(), format!("expected {expected}, found {}", self.describe_next()))
    }

    /// The next token as a message quotes it.
    pub(super) fn describe_next(&self) -> String {
        self.peek().map_or_else(|| END.to_owned(), describe)
    }

    /// The next token as the name of a clause: an unquoted word in upper case.
    pub(super) fn clause(&self) -> String {
        self.word().unwrap_or_else(|| self.describe_next())
    }

    /// Reads a name. `what` says in messages whose name it is: `a stream name`.
    pub(super) fn name(&mut self, what: &str) -> Parsed<Name> {
        let Some(Token::Word(word)) = self.peek() else { return Err(self.unexpected(what)) };
        let span = self.span();
        let quoted = word.quote_style.is_some();
        let value = fold(&word.value, quoted);
        if !quoted && super::is_reserved(&value) {
            return Err(self.unexpected(what).help(format!("A reserved word can be a name only in double quotes: \"{value}\".")));
        }
        self.advance();
        if value.is_empty() {
            return Err(Diagnostic::error(E0204, span, "a name cannot be empty"));
        }
        if value.chars().any(char::is_control) {
            return Err(Diagnostic::error(E0204, span, "a name cannot hold control characters"));
        }
        Ok(Name { value, span })
    }

    /// Reads the name of one of our objects, which has no schema in front of it.
    pub(super) fn object_name(&mut self, what: &str) -> Parsed<Name> {
        let name = self.name(what)?;
        if self.peek() == Some(&Token::Period) {
            let start = self.at - 1;
            while self.eat_token(&Token::Period) {
                self.advance();
            }
            let error = Diagnostic::error(E0204, self.span_from(start), format!("expected {what} of one part"));
            return Err(error.help("Streams, feature views and tables have no schema; a dot within a name needs double quotes."));
        }
        Ok(name)
    }

    /// Reads `(a, b, ...)`.
    pub(super) fn names(&mut self, what: &str) -> Parsed<Names> {
        let start = self.at;
        let names = self.parenthesised(|cursor| cursor.name(what))?;
        Ok(Names { names, span: self.span_from(start) })
    }

    /// Reads `(item, item, ...)`, at least one item.
    pub(super) fn parenthesised<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.expect_token(&Token::LParen)?;
        let mut items = vec![item(self)?];
        while self.eat_token(&Token::Comma) {
            items.push(item(self)?);
        }
        if !self.eat_token(&Token::RParen) {
            return Err(self.unexpected("\",\" or \")\""));
        }
        Ok(items)
    }

    /// The text of a span.
    pub(super) fn text(&self, span: Span) -> &'a str {
        self.source.slice(span)
    }

    /// Reads a string in single quotes.
    pub(super) fn string(&mut self, what: &str) -> Parsed<(String, Span)> {
        let span = self.span();
        match self.peek() {
            Some(Token::SingleQuotedString(text)) => {
                self.advance();
                Ok((text.clone(), span))
            }
            Some(Token::Word(word)) if word.quote_style == Some('"') => {
                Err(self.unexpected(what).help("A string stands in single quotes; double quotes are for names."))
            }
            _ => Err(self.unexpected(what)),
        }
    }

    /// Reads `IF NOT EXISTS` if it is next.
    pub(super) fn if_not_exists(&mut self) -> Parsed<bool> {
        let seen = self.eat("IF");
        if seen {
            self.expect_words(&["NOT", "EXISTS"])?;
        }
        Ok(seen)
    }

    /// Reads `FEATURE [VIEW]` in front of a name if it is next. A view may be named "view".
    pub(super) fn eats_feature_view(&mut self) -> bool {
        let seen = self.peek_at(1).is_some() && self.eat("FEATURE");
        if seen && self.peek_at(1).is_some() {
            self.eat("VIEW");
        }
        seen
    }

    /// The index behind the parenthesis that closes the one that is next, or what is missing.
    pub(super) fn closing(&self) -> Parsed<usize> {
        let mut depth = 0_usize;
        for (ahead, token) in self.tokens.get(self.at..).unwrap_or(&[]).iter().enumerate() {
            match token.token {
                Token::LParen => depth += 1,
                Token::RParen => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return Ok(self.at + ahead + 1);
            }
        }
        Err(Diagnostic::error(E0102, self.end, format!("expected \")\", found {END}")).note(self.span(), "It closes this one."))
    }
}

/// How a message names the place where nothing is left.
pub(super) const END: &str = "the end of the statement";

/// Whether a token is this word, unquoted, in any case.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(word))
}

/// A token as a message quotes it, cut where it is long.
pub(super) fn describe(token: &Token) -> String {
    const CHARS_MAX: usize = 40;
    let (quote, text) = match token {
        Token::EOF => return END.to_owned(),
        Token::SingleQuotedString(text) => ('\'', text.clone()),
        Token::Word(word) => ('"', word.value.clone()),
        token => ('"', token.to_string()),
    };
    let cut = if text.chars().count() > CHARS_MAX { "..." } else { "" };
    let shown: String = text.chars().take(CHARS_MAX).collect();
    format!("{quote}{shown}{cut}{quote}")
}
