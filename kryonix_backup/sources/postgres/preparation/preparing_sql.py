"""
What `prepare` makes in a tenant's database to have changes of the schema in its log, as SQL.

An event trigger writes one message of ours per statement. Nothing of it may ever make a statement
of the tenant fail: what cannot be recorded is recorded as such, and ends in a new full backup.
"""

from __future__ import annotations

from typing import NamedTuple

from kryonix_backup.sources.postgres.decoding.message import PREFIX
from kryonix_backup.sources.postgres.server.address import SCHEMA

# What a superuser repeats must come from nobody but our trigger: only its owner may write to this
# table, where everybody may write a message into the log.
TOLD = f"{SCHEMA}.told"
_SAY = "kryonix_say"

# What the text of a statement is read by, beside the search_path.
READ_BY = (
    "DateStyle", "IntervalStyle", "TimeZone", "standard_conforming_strings", "backslash_quote",
    "array_nulls", "transform_null_equals", "xmloption", "default_table_access_method",
    "check_function_bodies", "default_text_search_config",
)  # fmt: skip

COMMENT = "made by kryonix source prepare; kryonix source release removes it"

# A table of the publication whose UPDATE and DELETE the server would refuse. Partitioned tables
# have no rows; those of the system and of ours are not looked at.
WITHOUT_IDENTITY = """
select c.oid, n.nspname, c.relname, c.relreplident
from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and c.relpersistence = 'p' and c.oid >= 16384
  and n.nspname !~ '^pg_' and n.nspname <> 'kryonix' and c.relreplident <> 'f'
  and not exists (
    select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisvalid
      and case c.relreplident when 'd' then i.indisprimary and i.indimmediate
                              when 'i' then i.indisreplident else false end)
"""


class Function(NamedTuple):
    """A function of ours in the tenant's database."""

    name: str
    arguments: str
    returns: str
    options: str
    body: str

    @property
    def signature(self) -> str:
        """What DROP FUNCTION takes."""
        return f"{SCHEMA}.{self.name}({self.arguments})"

    @property
    def kind(self) -> tuple[str, bool, bool]:
        """What one that is there must have: its text, its owner's rights or not, a pinned path."""
        return self.body, "security definer" in self.options, "search_path" in self.options

    @property
    def create(self) -> str:
        """The statement that makes it, or puts it right."""
        made = (
            f"create or replace function {self.signature} returns {self.returns}"
            f" language plpgsql {self.options} as $kryonix${self.body}$kryonix$"
        )
        ours = f"; revoke all on function {self.signature} from public"
        return made + ours if self.name == _SAY else made


class Trigger(NamedTuple):
    """An event trigger of ours; it fires whatever session_replication_role says."""

    name: str
    event: str
    function: str

    @property
    def create(self) -> tuple[str, str]:
        """The statements that make it."""
        called = f"{SCHEMA}.{self.function}()"
        return (
            f"create event trigger {self.name} on {self.event} execute function {called}",
            f"alter event trigger {self.name} enable always",
        )


TRIGGERS = (
    Trigger("kryonix_table_rewrite", "table_rewrite", "kryonix_rewritten"),
    Trigger("kryonix_sql_drop", "sql_drop", "kryonix_dropped"),
    Trigger("kryonix_ddl_command_end", "ddl_command_end", "kryonix_ddl_end"),
)

# Values that are read from the catalog must not depend on the tenant's session. Where pg_temp is
# not named it comes first: a temporary view of the session's would then be taken for one of the
# catalog, and what it calls would run with our rights.
_PINNED = (
    "set search_path = pg_catalog, pg_temp set DateStyle = 'ISO,YMD' set TimeZone = 'UTC'"
    " set IntervalStyle = 'postgres' set extra_float_digits = '3' set bytea_output = 'hex'"
    " set lc_monetary = 'C'"
)
_PATH = "set search_path = pg_catalog, pg_temp"

# Of one statement this fires before ddl_command_end, which takes what is left here.
_REWRITTEN = """
begin
  if (select relpersistence from pg_class where oid = pg_event_trigger_table_rewrite_oid())
     is distinct from 't' then
    perform set_config('kryonix.rewritten', pg_event_trigger_table_rewrite_oid()::regclass::text,
                       true);
  end if;
exception when others then
  perform set_config('kryonix.rewritten', 'a table', true);
end"""

_DROPPED = """
declare
  gone record;
begin
  select bool_and(is_temporary or schema_name in ('pg_temp', '@schema@')
                  or (object_type = 'schema' and object_name = '@schema@'))
           filter (where original) as ours,
         bool_or(object_type in ('index', 'table constraint')) as unindexed
  into gone from pg_event_trigger_dropped_objects();
  perform set_config('kryonix.dropped', case when gone.ours then 'ours' else 'theirs' end, true);
  perform set_config('kryonix.unindexed', case when gone.unindexed then 'on' else '' end, true);
exception when others then
  raise warning 'kryonix: %', sqlerrm;
end"""

_SAYING = """
declare
  number bigint;
begin
  insert into @schema@.told (content) values (content) returning id into number;
  delete from @schema@.told where id = number;
end"""

# The path is the tenant's here, because it belongs into the message: every name is qualified, and
# no operator is used. It runs with the rights of who prepared, and cannot be called but by DDL.
_DDL_END = """
declare
  stack pg_catalog.text;
begin
  get diagnostics stack = pg_context;
  begin
    perform @schema@.kryonix_identify(stack);
  exception when others then
    raise warning 'kryonix: replica identities after % were not looked at: %', tg_tag, sqlerrm;
  end;
  perform @schema@.kryonix_record(tg_tag, pg_catalog.current_setting('search_path'),
    pg_catalog.json_build_object(@read_by@), stack);
exception when others then
  begin
    perform pg_catalog.pg_logical_emit_message(true, '@prefix@', pg_catalog.json_build_object(
      'kind', 'ddl', 'tag', tg_tag, 'query', coalesce(pg_catalog.current_query(), ''),
      'search_path', pg_catalog.current_setting('search_path'), 'role', current_user,
      'missing', pg_catalog.json_build_array(), 'settings', pg_catalog.json_build_object(),
      'opaque', pg_catalog.concat('it could not be recorded: ', sqlerrm))::pg_catalog.text);
  exception when others then
    raise warning 'kryonix: % was not recorded: %', tg_tag, sqlerrm;
  end;
end"""

# A table that the publication would make read-only gets an identity at once.
_IDENTIFY = """
declare
  lacking record;
begin
  if @schema@.kryonix_own(stack) then
    return;
  end if;
  for lacking in
    with recursive touched(oid) as (
      select objid from pg_event_trigger_ddl_commands() where classid = 'pg_class'::regclass
      union select i.inhrelid from pg_inherits i join touched t on t.oid = i.inhparent
    )
    @without_identity@
      and (c.oid in (select oid from touched)
           or current_setting('kryonix.unindexed', true) = 'on')
  loop
    begin
      execute format('alter table %I.%I replica identity full', lacking.nspname, lacking.relname);
      insert into @schema@.identity values (lacking.oid, lacking.relreplident)
        on conflict do nothing;
    exception when others then
      raise warning 'kryonix: %.% is left without replica identity: %',
        lacking.nspname, lacking.relname, sqlerrm;
    end;
  end loop;
end"""

# Whether this is the ALTER TABLE that we ran ourselves.
_OWN = r"""
begin
  return strpos(regexp_replace(stack, '^[^\n]*', ''), 'kryonix_ddl_end()') > 0;
end"""

_RECORD = """
declare
  query text := current_query();
  dropped text := coalesce(current_setting('kryonix.dropped', true), '');
  rewritten text := coalesce(current_setting('kryonix.rewritten', true), '');
  commands record;
  missing json;
  opaque text;
  content text;
begin
  if @schema@.kryonix_own(stack) then
    return;
  end if;
  perform set_config(name, '', true)
    from unnest('{kryonix.dropped,kryonix.rewritten,kryonix.unindexed}'::text[]) name;
  select count(*) as number, max(objid) as object, max(object_identity) as identity,
    count(*) filter (where not (
      in_extension or coalesce(schema_name in ('pg_temp', '@schema@'), false)
      or coalesce(object_identity like '% on pg\\_temp.%', false)
      or coalesce(object_type = 'schema' and object_identity = '@schema@', false)
      or coalesce(lower(object_type) = 'large object', false)  -- these are in no log at all
      or coalesce(tag = 'CREATE PUBLICATION' and object_identity = '@publication@', false))
    ) as theirs,
    bool_or(object_type like 'publication%' and object_identity ~ '\\m@publication@\\M'
            and tag <> 'CREATE PUBLICATION') as publication
  into commands from pg_event_trigger_ddl_commands();
  if tag = 'REINDEX' or (commands.number > 0 and commands.theirs = 0) or (commands.number = 0
      and (dropped = 'ours' or (dropped = '' and (tag like 'CREATE %'
           or stack ~ '"ALTER TABLE pg_temp_[0-9]+[.]pg_temp_')))) then
    return;  -- temporary (REFRESH CONCURRENTLY makes some), ours, an extension's, or not done
  end if;
  with recursive touched(oid) as (
    select objid from pg_event_trigger_ddl_commands()
    where classid = 'pg_class'::regclass and tag = 'ALTER TABLE'
    union select i.inhrelid from pg_inherits i join touched t on t.oid = i.inhparent
  )
  select coalesce(json_agg(json_build_array(
           n.nspname, c.relname, a.attname, array_to_string(a.attmissingval, ''))), '[]')
  into missing
  from touched t join pg_class c on c.oid = t.oid join pg_namespace n on n.oid = c.relnamespace
  join pg_attribute a on a.attrelid = c.oid and a.atthasmissing and not a.attisdropped;
  if tag = 'REFRESH MATERIALIZED VIEW' and commands.number = 1 then
    query := 'REFRESH MATERIALIZED VIEW ' || commands.identity || case when
      (select relispopulated from pg_class where oid = commands.object) then ''
      else ' WITH NO DATA' end;
    stack := '';
  end if;
  opaque := case when rewritten <> '' then 'it rewrote the rows of ' || rewritten
         when commands.publication or not exists (
           select from pg_publication where pubname = '@publication@')
           then 'our publication was altered or dropped'
         else @schema@.kryonix_opaque(tag, query, stack) end;
  content := json_build_object(
    'kind', 'ddl', 'tag', tag, 'query', coalesce(query, ''), 'search_path', path,
    'role', case current_setting('role') when 'none' then session_user::text
                                         else current_setting('role') end,
    'missing', missing, 'opaque', opaque, 'settings', settings)::text;
  if opaque = '' then
    perform @schema@.kryonix_say(content);
  else  -- a message needs no publication
    perform pg_logical_emit_message(true, '@prefix@', content);
  end if;
end"""

# Why a statement cannot be repeated from its text.
_OPAQUE = r"""
begin
  return case
    when coalesce(query, '') = '' then 'its text is not known'
    when strpos(stack, chr(10)) > 0 or not @schema@.kryonix_begins(tag, query)
      then 'it ran inside a function, a block or another statement'
    when @schema@.kryonix_several(query) then 'it came together with other statements'
    when tag = 'SELECT INTO' then 'it made a table out of a query, with INTO'
    when tag = 'CREATE TABLE AS' and query ~* '\mexecute\M|\$[0-9]'
      then 'it made a table out of a prepared query'
    when tag like '% SUBSCRIPTION' then 'it takes part in the log of another server'
    when tag = 'IMPORT FOREIGN SCHEMA' then 'it asked another server'
    when query ~* $re$'\s*(now|today|tomorrow|yesterday)\s*'$re$
      or query ~* ('\mfor\s+values\M.*\m(now|current_date|current_timestamp|localtimestamp|random'
        || '|clock_timestamp|statement_timestamp|transaction_timestamp|current_setting)\M')
      then 'it meant the time at which it ran'
    when tag in ('CREATE EXTENSION', 'ALTER EXTENSION') and exists (
      select from pg_event_trigger_ddl_commands() e
      join pg_depend d on d.refclassid = 'pg_extension'::regclass and d.refobjid = e.objid
        and d.deptype = 'e' and d.classid = 'pg_class'::regclass
      join pg_class c on c.oid = d.objid and c.relkind in ('r', 'p')
      where e.classid = 'pg_extension'::regclass) then 'the extension brings tables'
    else '' end;
end"""

# Whether the text begins as a statement of that kind does: CREATE [OR REPLACE …] VIEW.
_BEGINS = r"""
declare
  head text := regexp_replace(
    query, $re$^(?:[\s;(]|--[^\r\n]*[\r\n]|/\*(?:[^*]|\*+[^*/])*\*+/)+$re$, '');
  words text[] := regexp_split_to_array(upper(left(head, 200)), '[^A-Z]+');
  kind text[] := string_to_array(tag, ' ');
begin
  return words[1] = kind[1] and (kind[2] is null or kind[2] = any(words[2:7]));
end"""

# Whether the text holds several statements; where that cannot be told, it does.
_SEVERAL = r"""
declare
  -- What has no end of its own to be looked for: words, simple strings, names, comments of a line.
  plain constant text := $re$^(?:[^'"$;/\\-]|'[^'\\]*'|"[^"\\]*"|--[^\r\n]*(?:[\r\n]|$)|-(?!-)$re$
    || $re$|/(?!\*)|\$(?![A-Za-z_$]|[^\u0001-\u007f])|(?<=[A-Za-z0-9_$]|[^\u0001-\u007f])\$)*$re$;
  rest text := query;
  quote text;
  ended boolean := false;
  at integer;
begin
  if strpos(rtrim(query, E' \t\r\n;'), ';') = 0 then
    return false;
  elsif current_setting('standard_conforming_strings') = 'off' then
    return true;
  end if;
  loop
    if ended then
      rest := regexp_replace(rest, $re$^(?:[\s;]|--[^\r\n]*(?:[\r\n]|$))+$re$, '');
    else
      rest := substr(rest, 1 + length(substring(rest from plain)));
    end if;
    if rest = '' then
      return false;
    elsif left(rest, 2) = '/*' then
      at := strpos(substr(rest, 3), '*/');
      if at = 0 or strpos(substr(rest, 3, at - 1), '/*') > 0 then
        return true;
      end if;
      rest := substr(rest, at + 4);
    elsif ended then
      return true;
    elsif left(rest, 1) = ';' then
      ended := true;
    elsif left(rest, 1) = '$' then
      quote := substring(rest from '^\$(?:[A-Za-z_][A-Za-z0-9_]*)?\$');
      at := coalesce(strpos(substr(rest, length(quote) + 1), quote), 0);
      if at = 0 then
        return true;
      end if;
      rest := substr(rest, length(quote) + at + length(quote));
    else
      return true;
    end if;
  end loop;
end"""

_FUNCTIONS = (
    Function("kryonix_own", "stack text", "boolean", _PATH, _OWN),
    Function("kryonix_begins", "tag text, query text", "boolean", _PATH, _BEGINS),
    Function("kryonix_several", "query text", "boolean", _PATH, _SEVERAL),
    Function("kryonix_opaque", "tag text, query text, stack text", "text", _PATH, _OPAQUE),
    Function("kryonix_identify", "stack text", "void", _PATH, _IDENTIFY),
    Function(_SAY, "content text", "void", f"security definer {_PATH}", _SAYING),
    Function(
        "kryonix_record", "tag text, path text, settings json, stack text", "void", _PINNED, _RECORD
    ),
    Function("kryonix_rewritten", "", "event_trigger", _PATH, _REWRITTEN),
    Function("kryonix_dropped", "", "event_trigger", _PATH, _DROPPED),
    Function("kryonix_ddl_end", "", "event_trigger", "security definer", _DDL_END),
)


def functions(publication: str) -> tuple[Function, ...]:
    """The functions of a database whose publication has that name, helpers first."""
    return tuple(
        function._replace(body=_filled(function.body, publication)) for function in _FUNCTIONS
    )


def _filled(body: str, publication: str) -> str:
    values = {
        "without_identity": WITHOUT_IDENTITY,
        "schema": SCHEMA,
        "prefix": PREFIX,
        "read_by": ", ".join(f"'{name}', pg_catalog.current_setting('{name}')" for name in READ_BY),
        "publication": publication,
    }
    for name, value in values.items():
        body = body.replace(f"@{name}@", value)
    return body
