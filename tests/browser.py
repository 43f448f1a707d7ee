"A real browser for the tests of the site: headless Chromium, over its DevTools protocol"
import base64, functools, http.server, json, os, shutil, subprocess, tempfile, threading, time
from contextlib import contextmanager
from pathlib import Path

names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'

def find():
    "The browser's program: `$CHROME`, or the first that is installed; `None` without one"
    return os.getenv('CHROME') or next(filter(None, map(shutil.which, names)), None)

@contextmanager
def serve(folder):
    "The address at which `folder` is served on this machine"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally: server.shutdown()

class Tab:
    "One page of the browser: what it asked for, what it complained about, and JavaScript in it"
    def __init__(self, ws):
        self.ws,self.n,self.events = ws,0,[]
        for o in ('Page','Runtime','Network','Log'): self.do(f'{o}.enable')

    def do(self, method, **params):
        "The result of a command; events that come meanwhile are kept"
        self.n += 1
        self.ws.send(json.dumps(dict(id=self.n, method=method, params=params)))
        while True:
            m = json.loads(self.ws.recv(timeout=120))
            if m.get('id')==self.n:
                if 'error' in m: raise RuntimeError(f"{method}: {m['error']}")
                return m['result']
            self.events.append(m)

    def js(self, code):
        "The value of the JavaScript expression `code`, awaited"
        r = self.do('Runtime.evaluate', expression=code, awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in r: raise RuntimeError(f"{code[:200]}: {r['exceptionDetails']}")
        return r['result'].get('value')

    def until(self, code, seconds=20):
        "Wait until the JavaScript expression `code` is true, and return its value"
        end = time.time()+seconds
        while time.time()<end:
            try:
                if (v := self.js(code)): return v
            except RuntimeError: pass # the page is changing
            time.sleep(.05)
        raise TimeoutError(f'not true after {seconds} s: {code}')

    def size(self, width, height=900, phone=False):
        self.do('Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def open(self, url):
        "Go to `url`, wait until it's there, and keep only what happened on it"
        self.events.clear()
        self.do('Page.navigate', url=url)
        self.until(f'location.href.split("#")[0]=={json.dumps(url.split("#")[0])} && document.readyState=="complete"')
        self.js('new Promise(r => requestAnimationFrame(() => setTimeout(r, 20)))')

    def requests(self): return [e['params']['request']['url'] for e in self.events if e['method']=='Network.requestWillBeSent']

    def complaints(self):
        "Errors of scripts, of the console and of loading"
        res = [e['params']['exceptionDetails'].get('text', '?') for e in self.events if e['method']=='Runtime.exceptionThrown']
        res += [str(e['params']['args']) for e in self.events if e['method']=='Runtime.consoleAPICalled' and e['params']['type'] in ('error','assert')]
        res += [e['params']['entry']['text'] for e in self.events if e['method']=='Log.entryAdded' and e['params']['entry']['level']=='error']
        return res + [e['params']['errorText'] for e in self.events if e['method']=='Network.loadingFailed' and not e['params'].get('canceled')]

    def shot(self, path, width, full=True):
        "A picture of the page, all of it or what is seen at once"
        self.size(width, min(16000, self.js('document.documentElement.scrollHeight')) if full else 900, width<600)
        self.js('new Promise(r => setTimeout(r, 150))')
        Path(path).write_bytes(base64.b64decode(self.do('Page.captureScreenshot', format='png')['data']))

@contextmanager
def chromium(program=None):
    "A tab of a browser that forgets everything at the end"
    home = tempfile.mkdtemp()
    args = ['--headless=new','--no-sandbox','--disable-gpu','--disable-dev-shm-usage','--no-first-run','--disable-background-networking','--disable-component-update',
        '--disable-sync','--disable-extensions','--hide-scrollbars','--mute-audio','--remote-debugging-port=0',f'--user-data-dir={home}','about:blank']
    p = subprocess.Popen([program or find(), *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        port,end = Path(home)/'DevToolsActivePort',time.time()+90
        while not (port.exists() and '\n' in port.read_text()):
            if time.time()>end or p.poll() is not None: raise RuntimeError('the browser did not start')
            time.sleep(.1)
        import urllib.request
        number = port.read_text().split()[0]
        pages = json.load(urllib.request.urlopen(f'http://127.0.0.1:{number}/json/list', timeout=30))
        from websockets.sync.client import connect
        with connect(next(o for o in pages if o['type']=='page')['webSocketDebuggerUrl'], max_size=2**28, open_timeout=60) as ws: yield Tab(ws)
    finally:
        import signal
        try: os.killpg(p.pid, signal.SIGTERM)
        except ProcessLookupError: pass
        try: p.wait(10)
        except subprocess.TimeoutExpired: os.killpg(p.pid, signal.SIGKILL)
        shutil.rmtree(home, ignore_errors=True)

def shots(site, to, pages=(), widths=(1400,390), dark=False, full=True):
    "A picture of each page at each width, in the folder `to`"
    site,to = Path(site),Path(to)
    to.mkdir(parents=True, exist_ok=True)
    pages = pages or [str(o.relative_to(site)) for o in sorted(site.rglob('*.html')) if 'source' not in o.parts]
    with serve(site) as url, chromium() as tab:
        if dark: tab.do('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value='dark')])
        for w in widths:
            for o in pages:
                tab.size(w, 900, w<600)
                tab.open(f'{url}/{o}')
                tab.shot(to/f"{o.removesuffix('.html').replace('/','_')}_{w}{'_dark' if dark else ''}.png", w, full)

if __name__=='__main__':
    import argparse
    p = argparse.ArgumentParser(description=shots.__doc__)
    p.add_argument('site'); p.add_argument('to'); p.add_argument('pages', nargs='*'); p.add_argument('--dark', action='store_true')
    p.add_argument('--widths', default='1400,390'); p.add_argument('--top', action='store_true')
    a = p.parse_args()
    shots(a.site, a.to, a.pages, [int(o) for o in a.widths.split(',')], a.dark, not a.top)
