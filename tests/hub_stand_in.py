"""A hub of one's own on this machine, as far as models go there and come back: what `huggingface_hub` asks for, kept in
memory. `python tests/hub_stand_in.py` prints its address and runs until it is killed"""
import base64, hashlib, json, re, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import yaml

class Hub(ThreadingHTTPServer):
    "Repositories by name, each a dict from file to bytes; what was asked for"
    def __init__(self):
        self.repos,self.blobs,self.asked = {},{},[]
        super().__init__(('127.0.0.1', 0), Handler)
    @property
    def url(self): return f'http://127.0.0.1:{self.server_port}'

def complaint(card):
    "What is wrong with the fields of a card, as the hub's validator sees it, or None"
    m = re.match(r'---\n(.*?)\n---\n', card, re.S)
    if not m: return 'no fields'
    try: fields = yaml.safe_load(m[1])
    except yaml.YAMLError as e: return str(e)
    if not isinstance(fields.get('license'), str): return '"license" must be a string'
    if fields['license'] not in ('apache-2.0','mit','cc-by-sa-4.0','unknown'): return '"license" must be one of [...]'
    for o in fields.get('model-index', []):
        for r in o['results']:
            if not all('type' in r[k] for k in ('task','dataset')): return '"model-index" misses a type'
            if not all('value' in m for m in r['metrics']): return '"model-index" misses a value'

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass

    def say(self, status, body=b'', **headers):
        if not isinstance(body, bytes): body = json.dumps(body).encode()
        self.send_response(status)
        for k,v in {'Content-Length':len(body), **headers}.items(): self.send_header(k.replace('_', '-'), str(v))
        self.end_headers()
        if self.command!='HEAD': self.wfile.write(body)

    def body(self):
        if 'chunked' not in self.headers.get('Transfer-Encoding', ''):
            return self.rfile.read(int(self.headers.get('Content-Length', 0)))
        res = b''
        while n := int(self.rfile.readline(), 16):
            res += self.rfile.read(n)
            self.rfile.readline()
        self.rfile.readline()
        return res

    def handle_one_request(self):
        super().handle_one_request()
        if getattr(self, 'path', None): self.server.asked.append(f'{self.command} {self.path}')

    def do_POST(self):
        body,hub,path = self.body(),self.server,self.path.split('?')[0]
        if path=='/api/validate-yaml':
            wrong = complaint(json.loads(body)['content'])
            return self.say(400 if wrong else 200, {'errors':[{'message':wrong}] if wrong else [], 'warnings':[]})
        if self.headers.get('Authorization')!='Bearer good':
            return self.say(401, {'error':'Invalid credentials'}, X_Error_Message='Invalid credentials')
        if path=='/api/repos/create':
            o = json.loads(body)
            name = '/'.join(filter(None, [o.get('organization'),o['name']]))
            if name in hub.repos: return self.say(409, {'url':f'{hub.url}/{name}'})
            hub.repos[name] = {}
            return self.say(200, {'url':f'{hub.url}/{name}', 'id':name})
        if m := re.fullmatch(r'/api/models/(.+)/preupload/main', path):
            return self.say(200, {'files':[{'path':o['path'], 'shouldIgnore':False,
                'uploadMode':'lfs' if o['path'].endswith('.safetensors') else 'regular'}
                for o in json.loads(body)['files']]})
        if path.endswith('.git/info/lfs/objects/batch'):
            def way(o): return {'upload':{'href':f"{hub.url}/lfs/{o['oid']}"}}
            objects = [{**o, 'actions':way(o)} for o in json.loads(body)['objects']]
            return self.say(200, {'transfer':'basic', 'objects':objects})
        if m := re.fullmatch(r'/api/models/(.+)/commit/main', path):
            for line in body.decode().splitlines():
                o = json.loads(line)
                if o['key']=='file': hub.repos[m[1]][o['value']['path']] = base64.b64decode(o['value']['content'])
                if o['key']=='lfsFile': hub.repos[m[1]][o['value']['path']] = hub.blobs[o['value']['oid']]
            made = sha(hub.repos[m[1]])
            return self.say(200, {'commitUrl':f'{hub.url}/{m[1]}/commit/{made}', 'commitOid':made, 'success':True})
        self.say(404)

    def do_PUT(self):
        body = self.body()
        self.server.blobs[self.path.rsplit('/', 1)[1]] = body
        self.say(200 if hashlib.sha256(body).hexdigest()==self.path.rsplit('/', 1)[1] else 400)

    def do_GET(self):
        path = self.path.split('?')[0]
        m = re.fullmatch(r'/api/models/(.+?)(?:/(revision|tree)/(\w+))?|/(.+?)/resolve/(\w+)/(.+)', path)
        repo = self.server.repos.get(m and (m[1] or m[4]))
        if repo is None: return self.say(404, {'error':'Repository not found'}, X_Error_Code='RepoNotFound')
        if (m[3] or m[5] or 'main') not in ('main',sha(repo)):
            return self.say(404, {'error':'Revision not found'}, X_Error_Code='RevisionNotFound')
        if m[2]=='tree': return self.say(200, [dict(type='file', path=k, size=len(v), oid=hashlib.sha1(v).hexdigest())
            for k,v in repo.items()])
        if m[1]:
            files = [{'rfilename':k} for k in repo]
            return self.say(200, dict(id=m[1], modelId=m[1], sha=sha(repo), siblings=files, private=False, downloads=0,
                likes=0, tags=[]))
        if m[6] not in repo: return self.say(404, {'error':'Entry not found'}, X_Error_Code='EntryNotFound')
        self.say(200, repo[m[6]], ETag=f'"{hashlib.sha256(repo[m[6]]).hexdigest()}"', X_Repo_Commit=sha(repo))
    do_HEAD = do_GET

def sha(repo):
    parts = sorted((k,hashlib.sha1(v).hexdigest()) for k,v in repo.items())
    return hashlib.sha1(repr(parts).encode()).hexdigest()

if __name__=='__main__':
    hub = Hub()
    print(hub.url, flush=True)
    hub.serve_forever()
