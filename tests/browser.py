"A real browser for the tests of the site: an installed Chromium, driven by Playwright"
import functools, http.server, os, shutil, threading, time
from contextlib import contextmanager
from pathlib import Path

names = 'chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome'

def find():
    "The browser's program: `$CHROME`, or the first that is installed; `None` without one"
    return os.getenv('CHROME') or next(filter(None, map(shutil.which, names)), None)

@contextmanager
def serve(folder, kind=None):
    "The address at which `folder` is served on this machine; `kind`: what the server says that every file is"
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
        def guess_type(self, path): return kind or super().guess_type(path)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f'http://127.0.0.1:{server.server_port}'
    finally: server.shutdown()

class Tab:
    "One page of the browser: what it asked for, what it complained about, and JavaScript in it"
    def __init__(self, page):
        self.page,self._asked,self._bad = page,[],[]
        page.on('request', lambda o: self._asked.append(o.url))
        page.on('pageerror', lambda o: self._bad.append(str(o)))
        page.on('console', lambda o: o.type in ('error','assert') and self._bad.append(o.text))
        page.on('requestfailed', lambda o: self._failed(o))

    def _failed(self, request):
        if request.failure!='net::ERR_ABORTED': self._bad.append(f'{request.url}: {request.failure}')

    def js(self, code):
        "The value of the JavaScript expression `code`, awaited"
        return self.page.evaluate(code)

    def until(self, code, seconds=20):
        "Wait until the JavaScript expression `code` is true, and return its value; also on a page that forbids `eval`"
        end = time.monotonic()+seconds
        while not (res := self.js(code)):
            if time.monotonic()>end: raise TimeoutError(f'not after {seconds} s: {code}')
            self.page.wait_for_timeout(50)
        return res

    def size(self, width, height=900): self.page.set_viewport_size(dict(width=width, height=height))

    def open(self, url):
        "Go to `url`, wait until it's there, and keep only what happened on it"
        self._asked.clear()
        self._bad.clear()
        self.page.goto(url, wait_until='load', timeout=120_000)
        self.js('new Promise(r => requestAnimationFrame(() => setTimeout(r, 20)))')

    def requests(self): return list(self._asked)
    def complaints(self):
        "Errors of scripts, of the console and of loading"
        return list(self._bad)

    def shot(self, path, width, full=True):
        "A picture of the page, all of it or what is seen at once"
        self.size(width, min(16000, self.js('document.documentElement.scrollHeight')) if full else 900)
        self.js('new Promise(r => setTimeout(r, 150))')
        self.page.screenshot(path=path)

@contextmanager
def chromium(program=None, dark=False, phone=False, bypass_csp=True):
    "A tab of a browser that forgets everything at the end; without a network, on pages from `serve` or a disk"
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=program or find(), args=['--no-sandbox','--disable-dev-shm-usage'])
        try:
            scheme = 'dark' if dark else 'light'
            yield Tab(b.new_page(color_scheme=scheme, is_mobile=phone, has_touch=phone, bypass_csp=bypass_csp))
        finally: b.close()

def shots(site, to, pages=(), widths=(1400,390), dark=False, full=True):
    "A picture of each page at each width, in the folder `to`"
    site,to = Path(site),Path(to)
    to.mkdir(parents=True, exist_ok=True)
    pages = pages or [str(o.relative_to(site)) for o in sorted(site.rglob('*.html')) if 'source' not in o.parts]
    for w in widths:
        with serve(site) as url, chromium(dark=dark, phone=w<600) as tab:
            for o in pages:
                tab.size(w)
                tab.open(f'{url}/{o}')
                tab.shot(to/f"{o.removesuffix('.html').replace('/','_')}_{w}{'_dark' if dark else ''}.png", w, full)

if __name__=='__main__':
    import argparse
    p = argparse.ArgumentParser(description=shots.__doc__)
    p.add_argument('site')
    p.add_argument('to')
    p.add_argument('pages', nargs='*')
    p.add_argument('--dark', action='store_true')
    p.add_argument('--widths', default='1400,390')
    p.add_argument('--top', action='store_true', help='Only what is seen at once')
    a = p.parse_args()
    shots(a.site, a.to, a.pages, [int(o) for o in a.widths.split(',')], a.dark, not a.top)
