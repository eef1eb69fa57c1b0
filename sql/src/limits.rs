//! Bounds on SQL text, checked on its tokens before anything recursive reads them.
//!
//! Two things grow with hostile text: the recursion of the parser (nesting), and the depth of the tree that it builds, which every
//! later visit, clone and drop of the tree recurses over. `a + a + ...` nests nothing, yet its tree is as deep as it is long. The
//! depth is bounded here from above, by counting; what passes can be visited and cloned on a stack of 2 MiB in a debug build.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::codes::E0103;
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// The largest script that is read, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// The most tokens of one statement.
pub const STATEMENT_TOKENS_MAX: usize = 400_000;
/// How deep parentheses, brackets, braces and `CASE` may nest.
pub const NESTING_MAX: usize = 64;
/// How deep the tree of one statement may be. A step is what one operator takes, about 5 KiB of stack in a debug build.
pub const DEPTH_MAX: usize = 256;
/// How deep all that is open at one place may be together: what the parser recurses over.
pub const OPEN_MAX: usize = 2 * DEPTH_MAX;
/// How deep types such as `ARRAY<STRUCT<...>>` may nest.
pub const TYPE_NESTING_MAX: usize = 16;
/// How many joins may be chained in one query.
pub const JOINS_MAX: usize = 128;
/// How many subqueries that open with two parentheses may nest: each doubles the parser's work.
pub const DOUBLE_PARENTHESES_MAX: usize = 8;

/// Steps that a plain pair of parentheses takes.
const STEPS_PARENTHESES: usize = 2;
/// Steps that a call or a CASE takes.
const STEPS_CALL: usize = 3;
/// Steps that a subquery takes.
const STEPS_QUERY: usize = 9;
/// Steps that a set operation takes.
const STEPS_SET_OPERATION: usize = 4;

/// Checks the tokens of one statement (no white space). Gives an upper bound of the depth of its tree, in steps.
pub fn check(tokens: &[TokenWithSpan]) -> Result<usize, Diagnostic> {
    if tokens.len() > STATEMENT_TOKENS_MAX {
        let span = tokens.first().map_or(Span::NONE, |token| token.span.into());
        return Err(Diagnostic::error(E0103, span, format!("statement has more than {STATEMENT_TOKENS_MAX} tokens"))
            .help("Load rows with COPY, or split the statement."));
    }
    let mut depth = Depth { levels: vec![Level::new(Opener::Statement, 0)], deepest: 0, types: 0 };
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|at| tokens.get(at)).map(|token| &token.token);
        let after = tokens.get(index + 1).map(|token| &token.token);
        depth.step(&token.token, before, after).map_err(|excess| excess.at(token.span.into()))?;
    }
    Ok(depth.deepest)
}

enum Excess {
    Nesting,
    Depth,
    Joins,
    DoubleParentheses,
}

impl Excess {
    fn at(&self, span: Span) -> Diagnostic {
        let (message, help) = match self {
            Excess::Nesting => (
                format!("statement nests more than {NESTING_MAX} levels deep, or {TYPE_NESTING_MAX} of types"),
                "Name inner parts in a WITH clause, or leave out parentheses.",
            ),
            Excess::Depth => (
                format!("statement chains and nests more than {DEPTH_MAX} operators"),
                "Write IN (...) in place of many ORs, or name parts in a WITH clause.",
            ),
            Excess::Joins => (format!("query chains more than {JOINS_MAX} joins"), "Split it into several queries."),
            Excess::DoubleParentheses => (
                format!("more than {DOUBLE_PARENTHESES_MAX} nested subqueries stand in double parentheses"),
                "One pair of parentheses around a subquery is enough.",
            ),
        };
        Diagnostic::error(E0103, span, message).help(help)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Opener {
    Statement,
    Bracket,
    Case,
}

/// What is open: one pair of brackets, or one `CASE`.
///
/// The depth of an expression is bounded by `max(tree, run)`: a connective (AND, OR) makes everything left of it one deeper, any
/// other operator what stands since the last connective. Every operator is counted as if all others bound tighter.
struct Level {
    opener: Opener,
    /// Steps that the level itself takes.
    steps: usize,
    /// Whether it is a subquery in double parentheses.
    double: bool,
    /// How deep the levels around it are, up to where it opens.
    around: usize,
    tree: usize,
    run: usize,
    /// The deepest expression of this level that has ended.
    done: usize,
    /// Set operations and the like: they make the whole level deeper and do not end with an expression.
    chain: usize,
    joins: usize,
}

impl Level {
    fn new(opener: Opener, steps: usize) -> Level {
        Level { opener, steps, double: false, around: 0, tree: 0, run: 0, done: 0, chain: 0, joins: 0 }
    }

    fn depth(&self) -> usize {
        self.done.max(self.tree).max(self.run) + self.chain
    }

    fn end_expression(&mut self) {
        self.done = self.done.max(self.tree).max(self.run);
        (self.tree, self.run) = (0, 0);
    }
}

struct Depth {
    levels: Vec<Level>,
    deepest: usize,
    /// How many types in angle brackets are open. Commas do not end them.
    types: usize,
}

impl Depth {
    fn step(&mut self, token: &Token, before: Option<&Token>, after: Option<&Token>) -> Result<(), Excess> {
        match token {
            Token::LParen => {
                let query = after.is_some_and(opens_query);
                let steps = match before {
                    _ if query => STEPS_QUERY,
                    Some(Token::Word(_)) => STEPS_CALL,
                    _ => STEPS_PARENTHESES,
                };
                let double = query && before == Some(&Token::LParen);
                self.open(Level { double, ..Level::new(Opener::Bracket, steps) })?;
            }
            // A bracket may be an operator (`a[1]`, `INT[]`), each a level of the tree.
            Token::LBracket | Token::LBrace => {
                self.operator()?;
                self.open(Level::new(Opener::Bracket, STEPS_CALL))?;
            }
            Token::RParen | Token::RBracket | Token::RBrace => self.close_bracket()?,
            Token::Lt if before.is_some_and(takes_type) => {
                self.types += 1;
                if self.types > TYPE_NESTING_MAX {
                    return Err(Excess::Nesting);
                }
                self.operator()?;
            }
            Token::Gt | Token::ShiftRight => {
                self.types = self.types.saturating_sub(if *token == Token::Gt { 1 } else { 2 });
                self.operator()?;
            }
            Token::Comma => self.top().end_expression(),
            Token::Word(word) if word.quote_style.is_none() => self.word(word.keyword, before)?,
            token if !is_operand(token) => self.operator()?,
            _ => {}
        }
        Ok(())
    }

    fn word(&mut self, keyword: Keyword, before: Option<&Token>) -> Result<(), Excess> {
        // A word ends an expression only behind an operand: after an operator sqlparser would read it as a name.
        let ends = before.is_some_and(ends_operand);
        match keyword {
            Keyword::CASE => {
                // Should it turn out to be a name, what stands left of it is part of the same expression.
                let Level { tree, run, .. } = *self.top();
                self.open(Level { tree, run: run + 1, ..Level::new(Opener::Case, STEPS_CALL) })?;
            }
            // What is closed too early loses nothing: its depth goes on in the level around it.
            Keyword::END if self.top().opener == Opener::Case => self.close_top()?,
            Keyword::AND | Keyword::OR | Keyword::XOR => {
                let top = self.top();
                (top.tree, top.run) = (top.tree.max(top.run) + 1, 0);
                self.check_depth()?;
            }
            Keyword::JOIN => {
                let top = self.top();
                top.joins += 1;
                if top.joins > JOINS_MAX {
                    return Err(Excess::Joins);
                }
            }
            Keyword::UNION
            | Keyword::EXCEPT
            | Keyword::INTERSECT
            | Keyword::MINUS
            | Keyword::PIVOT
            | Keyword::UNPIVOT
            | Keyword::MATCH_RECOGNIZE => {
                let top = self.top();
                if ends {
                    top.end_expression();
                }
                top.chain += STEPS_SET_OPERATION;
                self.check_depth()?;
            }
            // The parts of a CASE keep the depth that stands left of the CASE: ending them would forget it.
            Keyword::WHEN | Keyword::THEN | Keyword::ELSE if ends && self.top().opener == Opener::Case => {
                let parent = self.levels.len().checked_sub(2).and_then(|at| self.levels.get(at));
                let (tree, run) = parent.map_or((0, 0), |parent| (parent.tree, parent.run + 1));
                let top = self.top();
                top.end_expression();
                (top.tree, top.run) = (tree, run);
            }
            Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::QUALIFY
            | Keyword::WINDOW
            | Keyword::ORDER
            | Keyword::LIMIT
            | Keyword::ON
                if ends && self.top().opener != Opener::Case =>
            {
                self.top().end_expression();
            }
            _ if is_infix_word(keyword) => self.operator()?,
            _ => {}
        }
        Ok(())
    }

    fn operator(&mut self) -> Result<(), Excess> {
        self.top().run += 1;
        self.check_depth()
    }

    fn open(&mut self, level: Level) -> Result<(), Excess> {
        let double = level.double;
        let parent = self.top();
        // A CASE goes on from the depth of its parent.
        let before = if level.opener == Opener::Case { 0 } else { parent.depth() };
        let around = parent.around + parent.steps + before;
        self.levels.push(Level { around, ..level });
        if self.levels.len() > NESTING_MAX + 1 {
            return Err(Excess::Nesting);
        }
        if double && self.levels.iter().filter(|level| level.double).count() > DOUBLE_PARENTHESES_MAX {
            return Err(Excess::DoubleParentheses);
        }
        self.check_depth()
    }

    /// A closing bracket ends every CASE that is still open in it.
    fn close_bracket(&mut self) -> Result<(), Excess> {
        while self.top().opener == Opener::Case {
            self.close_top()?;
        }
        // One too many is the parser's to report.
        if self.levels.len() > 1 { self.close_top() } else { Ok(()) }
    }

    fn close_top(&mut self) -> Result<(), Excess> {
        if let Some(closed) = self.levels.pop() {
            let depth = closed.depth() + closed.steps;
            let top = self.top();
            top.run = top.run.max(depth);
        }
        self.check_depth()
    }

    fn check_depth(&mut self) -> Result<(), Excess> {
        let top = self.top();
        let depth = top.depth();
        let open = top.around + top.steps + depth;
        self.deepest = self.deepest.max(open);
        if depth > DEPTH_MAX || open > OPEN_MAX { Err(Excess::Depth) } else { Ok(()) }
    }

    fn top(&mut self) -> &mut Level {
        self.levels.last_mut().expect("the level of the statement is never closed")
    }
}

/// Whether a token stands for a value or holds tokens together, so that it adds nothing to the depth.
fn is_operand(token: &Token) -> bool {
    matches!(token, Token::Period | Token::SemiColon | Token::Placeholder(_)) || is_literal(token) || matches!(token, Token::Word(_))
}

fn is_literal(token: &Token) -> bool {
    matches!(
        token,
        Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
    )
}

/// Whether a token can only be the end of an operand.
fn ends_operand(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            let value_word = matches!(word.keyword, Keyword::NoKeyword | Keyword::NULL | Keyword::TRUE | Keyword::FALSE | Keyword::END)
                || is_usual_name(word.keyword);
            word.quote_style.is_some() || value_word
        }
        Token::RParen | Token::RBracket | Token::RBrace | Token::Placeholder(_) => true,
        token => is_literal(token),
    }
}

/// Keywords of sqlparser that are often columns and never operators.
fn is_usual_name(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::DATE
            | Keyword::DAY
            | Keyword::HOUR
            | Keyword::LEVEL
            | Keyword::LOCATION
            | Keyword::MINUTE
            | Keyword::MONTH
            | Keyword::NAME
            | Keyword::SECOND
            | Keyword::SOURCE
            | Keyword::STATUS
            | Keyword::TIME
            | Keyword::TIMESTAMP
            | Keyword::TYPE
            | Keyword::USER
            | Keyword::VALUE
            | Keyword::YEAR
    )
}

/// Whether a type in angle brackets may stand behind this word.
fn takes_type(token: &Token) -> bool {
    let Token::Word(word) = token else { return false };
    matches!(word.keyword, Keyword::ARRAY | Keyword::STRUCT | Keyword::MAP)
}

fn opens_query(token: &Token) -> bool {
    let Token::Word(word) = token else { return false };
    matches!(word.keyword, Keyword::SELECT | Keyword::WITH | Keyword::VALUES | Keyword::TABLE | Keyword::FROM)
}

fn is_infix_word(keyword: Keyword) -> bool {
    matches!(
        keyword,
        Keyword::AT
            | Keyword::BETWEEN
            | Keyword::COLLATE
            | Keyword::DIV
            | Keyword::ILIKE
            | Keyword::IN
            | Keyword::INTERVAL
            | Keyword::IS
            | Keyword::LIKE
            | Keyword::MATCH
            | Keyword::MEMBER
            | Keyword::NOT
            | Keyword::NOTNULL
            | Keyword::OPERATOR
            | Keyword::OVERLAPS
            | Keyword::REGEXP
            | Keyword::RLIKE
            | Keyword::SIMILAR
    )
}
