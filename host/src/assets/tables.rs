//! Readers of the formats in which sources keep their rows: JSON lines, CSV, plain lines, Arrow streams, Parquet.

use super::error::AssetError;
use super::record::{Record, Schema, Text, answers, counts};
use arrow_array::cast::AsArray;
use arrow_array::types::{
    Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Cursor;
use std::path::Path;

/// Bytes as text, without a byte order mark.
fn decode<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str, AssetError> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count() as u64;
        AssetError::data(file, Some(line), "is not UTF-8")
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// Bytes as text, without a byte order mark and with Unix line ends.
pub(crate) fn text(bytes: &[u8], file: &str) -> Result<String, AssetError> {
    let text = decode(bytes, file)?;
    Ok(if text.contains('\r') { text.replace("\r\n", "\n") } else { text.to_owned() })
}

/// One JSON object a line; blank lines are passed over.
pub(crate) fn json_lines(bytes: &[u8], file: &str) -> Result<Vec<(u64, Value)>, AssetError> {
    let text = text(bytes, file)?;
    let mut rows = Vec::new();
    // Not `lines()` of Python's kind: a JSON string may hold U+2028, which ends no line here either.
    for (i, line) in text.split('\n').enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let number = i as u64 + 1;
        let row = serde_json::from_str(line)
            .map_err(|e| AssetError::data(file, Some(number), format!("is not JSON ({e})")))?;
        rows.push((number, row));
    }
    Ok(rows)
}

/// Rows of `schema` from numbered values.
pub(crate) fn records(rows: &[(u64, Value)], schema: Schema, file: &str) -> Result<Vec<Record>, AssetError> {
    rows.iter()
        .filter(|(_, row)| counts(schema, row))
        .map(|(line, row)| {
            Record::from_row(schema, row).map_err(|what| AssetError::data(file, Some(*line), what))
        })
        .collect()
}

/// The cache's own form.
pub(crate) fn cached(bytes: &[u8], file: &str) -> Result<Vec<Record>, AssetError> {
    let text = text(bytes, file)?;
    text.split('\n')
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(i, line)| {
            serde_json::from_str(line).map_err(|e| AssetError::data(file, Some(i as u64 + 1), e.to_string()))
        })
        .collect()
}

/// The cache's own form of `records`.
pub(crate) fn to_cached(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    for record in records {
        // Serialising strings and numbers into memory cannot fail.
        serde_json::to_writer(&mut out, record).expect("records are plain data");
        out.push(b'\n');
    }
    out
}

/// Lines with their line end as rows, a blank line as an empty row (how the hub publishes WikiText).
pub(crate) fn lines(bytes: &[u8], file: &str) -> Result<Vec<Record>, AssetError> {
    let text = text(bytes, file)?;
    if text.trim().is_empty() {
        return Err(AssetError::data(file, None, "holds no text"));
    }
    Ok(text
        .split_inclusive('\n')
        .map(|line| {
            let text = if line.trim().is_empty() { String::new() } else { line.to_owned() };
            Record::Text(Text { text })
        })
        .collect())
}

/// MMLU's published CSV: question, four options, letter; no header.
pub(crate) fn mmlu_csv(bytes: &[u8], file: &str, subject: &str) -> Result<Vec<Record>, AssetError> {
    // Line ends inside a question are part of it and stay as they are.
    let text = decode(bytes, file)?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut out = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|e| {
            let line = e.position().map(csv::Position::line);
            AssetError::data(file, line, format!("is not CSV ({e})"))
        })?;
        let line = row.position().map(csv::Position::line);
        if row.len() != 6 {
            return Err(AssetError::data(
                file,
                line,
                format!("needs 6 columns (question, A, B, C, D, answer), found {}", row.len()),
            ));
        }
        let answer = match row.get(5).map(str::trim) {
            Some("A") => 0,
            Some("B") => 1,
            Some("C") => 2,
            Some("D") => 3,
            other => {
                return Err(AssetError::data(
                    file,
                    line,
                    format!("the answer must be A, B, C or D, found `{}`", other.unwrap_or_default()),
                ));
            }
        };
        out.push(Record::Question(super::record::Question {
            id: String::new(),
            subject: subject.to_owned(),
            question: row[0].to_owned(),
            choices: (1..5).map(|i| row[i].to_owned()).collect(),
            gold: answer,
        }));
    }
    Ok(out)
}

/// Tab-separated rows under a line of names; quotation marks are text like any other (GLUE's layout).
pub(crate) fn tsv(bytes: &[u8], file: &str) -> Result<Vec<(u64, Value)>, AssetError> {
    let text = text(bytes, file)?;
    let mut lines = text.split('\n').enumerate().filter(|(_, line)| !line.is_empty());
    let Some((_, head)) = lines.next() else {
        return Err(AssetError::data(file, None, "holds no line of names"));
    };
    let names: Vec<&str> = head.split('\t').collect();
    lines
        .map(|(i, line)| {
            let cells: Vec<&str> = line.split('\t').collect();
            if cells.len() != names.len() {
                let what = format!("has {} columns, but {} names", cells.len(), names.len());
                return Err(AssetError::data(file, Some(i as u64 + 1), what));
            }
            let row = names.iter().zip(cells).map(|(n, c)| ((*n).to_owned(), Value::from(c))).collect();
            Ok((i as u64 + 1, Value::Object(row)))
        })
        .collect()
}

/// AdvGLUE's file: a JSON object with a list of rows for each part. The part's name goes into each row as `subset`.
pub(crate) fn adv_glue(bytes: &[u8], file: &str) -> Result<Vec<(u64, Value)>, AssetError> {
    let wrong = |what: String| AssetError::data(file, None, what);
    let all: Map<String, Value> = serde_json::from_str(&text(bytes, file)?)
        .map_err(|e| wrong(format!("is not an object of lists ({e})")))?;
    let mut rows = Vec::new();
    for (part, list) in all {
        let Value::Array(list) = list else {
            return Err(wrong(format!("`{part}` must be a list of rows")));
        };
        for (i, mut row) in list.into_iter().enumerate() {
            let Some(object) = row.as_object_mut() else {
                return Err(wrong(format!("`{part}`, row {i}, must be an object")));
            };
            object.insert("subset".to_owned(), Value::from(part.as_str()));
            rows.push((i as u64 + 1, row));
        }
    }
    Ok(rows)
}

/// TruthfulQA's published CSV, whose cells list answers with `;` between them.
pub(crate) fn truthful_csv(bytes: &[u8], file: &str) -> Result<Vec<Record>, AssetError> {
    let text = decode(bytes, file)?;
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let bad = |e: csv::Error| {
        AssetError::data(file, e.position().map(csv::Position::line), format!("is not CSV ({e})"))
    };
    let names = reader.headers().map_err(bad)?.clone();
    let column = |name: &str| {
        let place = names.iter().position(|n| n == name);
        place.ok_or_else(|| AssetError::data(file, Some(1), format!("has no column `{name}`")))
    };
    let (question, best) = (column("Question")?, column("Best Answer")?);
    let (correct, incorrect) = (column("Correct Answers")?, column("Incorrect Answers")?);
    let list = |cell: &str| -> Vec<String> {
        cell.split(';').map(str::trim).filter(|a| !a.is_empty()).map(str::to_owned).collect()
    };
    let mut out = Vec::new();
    for row in reader.records() {
        let row = row.map_err(bad)?;
        let record = answers(
            row[question].to_owned(),
            row[best].trim().to_owned(),
            list(&row[correct]),
            list(&row[incorrect]),
        );
        let line = row.position().map(csv::Position::line);
        out.push(record.map_err(|what| AssetError::data(file, line, what))?);
    }
    Ok(out)
}

/// Rows of an Arrow IPC stream.
pub(crate) fn arrow_stream(bytes: &[u8], file: &str) -> Result<Vec<(u64, Value)>, AssetError> {
    let bad =
        |e: &dyn std::fmt::Display| AssetError::data(file, None, format!("is not an Arrow stream ({e})"));
    let reader = arrow_ipc::reader::StreamReader::try_new(Cursor::new(bytes), None).map_err(|e| bad(&e))?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch: RecordBatch = batch.map_err(|e| bad(&e))?;
        for i in 0..batch.num_rows() {
            let mut row = Map::new();
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                row.insert(field.name().clone(), arrow_value(column.as_ref(), i));
            }
            rows.push((rows.len() as u64 + 1, Value::Object(row)));
        }
    }
    Ok(rows)
}

/// The value at `row`; types that no data set here uses come out as null and are then reported as the field's wrong type.
fn arrow_value(column: &dyn Array, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::LargeUtf8 => column.as_string::<i64>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|i| arrow_value(items.as_ref(), i)).collect()
        }
        DataType::LargeList(_) => {
            let items = column.as_list::<i64>().value(row);
            (0..items.len()).map(|i| arrow_value(items.as_ref(), i)).collect()
        }
        DataType::Struct(fields) => {
            let columns = column.as_struct();
            let mut object = Map::new();
            for (field, column) in fields.iter().zip(columns.columns()) {
                object.insert(field.name().clone(), arrow_value(column.as_ref(), row));
            }
            Value::Object(object)
        }
        _ => Value::Null,
    }
}

/// Rows of a Parquet file.
pub(crate) fn parquet_rows(path: &Path) -> Result<Vec<(u64, Value)>, AssetError> {
    let name = path.display().to_string();
    let bad = |e: &dyn std::fmt::Display| {
        AssetError::data(name.clone(), None, format!("is not a Parquet file ({e})"))
    };
    let file = File::open(path).map_err(|e| AssetError::io("open", path, e))?;
    let reader = SerializedFileReader::new(file).map_err(|e| bad(&e))?;
    let mut rows = Vec::new();
    for row in reader.get_row_iter(None).map_err(|e| bad(&e))? {
        let row: Row = row.map_err(|e| bad(&e))?;
        rows.push((rows.len() as u64 + 1, parquet_group(&row)));
    }
    Ok(rows)
}

fn parquet_group(row: &Row) -> Value {
    Value::Object(row.get_column_iter().map(|(name, field)| (name.clone(), parquet_value(field))).collect())
}

fn parquet_value(field: &Field) -> Value {
    match field {
        Field::Bool(v) => (*v).into(),
        Field::Byte(v) => (*v).into(),
        Field::Short(v) => (*v).into(),
        Field::Int(v) => (*v).into(),
        Field::Long(v) => (*v).into(),
        Field::UByte(v) => (*v).into(),
        Field::UShort(v) => (*v).into(),
        Field::UInt(v) => (*v).into(),
        Field::ULong(v) => (*v).into(),
        Field::Str(v) => v.clone().into(),
        Field::Group(row) => parquet_group(row),
        Field::ListInternal(list) => list.elements().iter().map(parquet_value).collect(),
        // No data set here uses the others; the record's reader reports the field's wrong type.
        _ => Value::Null,
    }
}

#[derive(serde::Deserialize)]
struct Requests {
    doc: RequestDoc,
}

#[derive(serde::Deserialize)]
struct RequestDoc {
    #[serde(default)]
    id: String,
    #[serde(default)]
    title: String,
    query: String,
    #[serde(default)]
    choices: Vec<String>,
    #[serde(default)]
    gold: Option<usize>,
}

fn request_docs(bytes: &[u8], file: &str) -> Result<Vec<(u64, RequestDoc)>, AssetError> {
    json_lines(bytes, file)?
        .into_iter()
        .map(|(line, row)| {
            serde_json::from_value::<Requests>(row)
                .map(|r| (line, r.doc))
                .map_err(|e| AssetError::data(file, Some(line), e.to_string()))
        })
        .collect()
}

/// ARC rebuilt from scoring requests: one line per option, several lines per question.
pub(crate) fn arc_requests(bytes: &[u8], file: &str) -> Result<Vec<Record>, AssetError> {
    let mut seen = std::collections::HashSet::new();
    let mut out = Vec::new();
    for (line, doc) in request_docs(bytes, file)? {
        if !seen.insert(doc.id.clone()) {
            continue;
        }
        let question =
            doc.query.strip_prefix("Question: ").and_then(|q| q.strip_suffix("\nAnswer:")).ok_or_else(
                || AssetError::data(file, Some(line), "`query` is not `Question: ...` with `Answer:`"),
            )?;
        let gold = doc.gold.filter(|gold| *gold < doc.choices.len());
        out.push(Record::Question(super::record::Question {
            id: doc.id,
            subject: String::new(),
            question: question.to_owned(),
            choices: doc.choices,
            gold: gold.ok_or_else(|| {
                AssetError::data(file, Some(line), "`gold` is missing or no option's index")
            })?,
        }));
    }
    Ok(out)
}

/// SQuAD's paragraphs from scoring requests: each once, the paragraphs of an article together.
pub(crate) fn squad_requests(bytes: &[u8], file: &str) -> Result<Vec<Record>, AssetError> {
    let mut articles: Vec<(String, Vec<String>)> = Vec::new();
    for (line, doc) in request_docs(bytes, file)? {
        let passage = doc
            .query
            .strip_prefix(&format!("Title: {}\nBackground: ", doc.title))
            .and_then(|rest| rest.rfind("\nQuestion: ").map(|end| &rest[..end]))
            .ok_or_else(|| {
                AssetError::data(file, Some(line), "`query` is not a title, a background and a question")
            })?;
        let at = match articles.iter().position(|(title, _)| *title == doc.title) {
            Some(at) => at,
            None => {
                articles.push((doc.title.clone(), Vec::new()));
                articles.len() - 1
            }
        };
        if !articles[at].1.iter().any(|p| p == passage) {
            articles[at].1.push(passage.to_owned());
        }
    }
    Ok(articles
        .into_iter()
        .flat_map(|(_, passages)| passages)
        .map(|text| Record::Text(Text { text }))
        .collect())
}
