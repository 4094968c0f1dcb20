/*
 * Sends the label server (scripts/serve.py) what is known of the open slide: a label, a rough fraction of tumour, and
 * the annotations of the classes Tumor and Normal. QuPath 0.5 and later.
 *
 * The annotations are in QuPath's own coordinates, which the server expects unless it runs with --annotation_frame level0.
 *
 * Every name of QuPath that it uses was looked up in the sources of QuPath 0.5, 0.6 and 0.7; it has not been run in QuPath.
 */
import java.net.http.HttpClient
import java.net.http.HttpRequest
import java.net.http.HttpResponse
import qupath.lib.io.PathIO

import static qupath.lib.scripting.QP.*

// ---- Settings
def SERVER = "http://127.0.0.1:8000"
def SLIDE = null            // its id, such as "case1~slide", where another slide of the server has this name; null: its own name
def TUMOR = null            // 1 or 0; null: say nothing, the annotations speak
def FRACTION = null         // of the tissue, 0 to 1; null: not known
def SEND_ANNOTATIONS = true
// ----

def image = getCurrentServer()
if (image == null) {
    println "Open a slide first."
    return
}
def client = HttpClient.newHttpClient()
def file = new File(image.getURIs().iterator().next().getPath()).getName()
def dot = file.lastIndexOf(".")
def slide = dot > 0 ? file.substring(0, dot) : file
// <slide>.ome.tif is called <slide> by the server.
if (slide.toLowerCase().endsWith(".ome"))
    slide = slide.substring(0, slide.length() - 4)
if (SLIDE != null)
    slide = SLIDE
def encode = { text -> URLEncoder.encode(text.toString(), "UTF-8").replace("+", "%20") }
def put = { String path, String type, byte[] body ->
    def request = HttpRequest.newBuilder(URI.create(SERVER + path)).header("Content-Type", type)
            .PUT(HttpRequest.BodyPublishers.ofByteArray(body)).build()
    def reply = client.send(request, HttpResponse.BodyHandlers.ofString())
    if (reply.statusCode() != 200)
        throw new IOException("The server said " + reply.statusCode() + ": " + reply.body())
}

if (TUMOR != null) {
    def label = '{"weak_label":{"tumor":' + TUMOR + (FRACTION == null ? "" : ',"fraction":' + FRACTION) + "}}"
    put("/datastore/image/info?image=" + encode(slide), "application/x-www-form-urlencoded", ("info=" + encode(label)).getBytes("UTF-8"))
    println slide + ": " + label
}
if (SEND_ANNOTATIONS) {
    // What ask_server.groovy and import_maps.groovy have drawn is no label.
    def isMap = { String name -> name.startsWith("map by ") || name == "imported map" }
    def drawn = getAnnotationObjects().findAll { it.getPathClass() != null && !isMap(it.getName() ?: "") }
    if (drawn.isEmpty()) {
        println slide + ": no annotation has a class"
        return
    }
    def content = new ByteArrayOutputStream()
    PathIO.exportObjectsAsGeoJSON(content, drawn, PathIO.GeoJsonExportOptions.FEATURE_COLLECTION)
    def boundary = "QuPath" + UUID.randomUUID().toString()
    def whole = new ByteArrayOutputStream()
    whole.write(("--" + boundary + "\r\nContent-Disposition: form-data; name=\"label\"; filename=\"label.geojson\"\r\n"
            + "Content-Type: application/geo+json\r\n\r\n").getBytes("UTF-8"))
    whole.write(content.toByteArray())
    whole.write(("\r\n--" + boundary + "--\r\n").getBytes("UTF-8"))
    put("/datastore/label?image=" + encode(slide), "multipart/form-data; boundary=" + boundary, whole.toByteArray())
    println slide + ": " + drawn.size() + " annotations"
}
